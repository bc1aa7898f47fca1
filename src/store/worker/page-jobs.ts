/** What the main thread asks of a page Worker, and what it answers. Plain data; batches by shared memory. */
import type { PackName } from '../pack/pack-format.js';
import type { SealedPack } from '../pack/pack-writer.js';
import type { SegmentRow } from '../segment/segment-file.js';
import type { PackerResult } from './packer.js';

/** Packs that may be read, as pairs number, generation. */
export type PackList = Uint32Array;

export interface Jobs {
  /** Begins a save under a number of the caller's, or begins it again; answers the segments that cannot be mapped. */
  packBegin: {
    ask: {
      session: number;
      dir: string;
      fingerprintBits: number;
      packs: PackList;
      segments: readonly SegmentRow[];
    };
    answer: { missing: readonly number[] };
  };
  /** Fingerprints, places and stores a batch; answers how many packs can still be begun. */
  packBatch: {
    ask: {
      session: number;
      batch: SharedArrayBuffer;
      count: number;
      manifest: boolean;
      newNumbers: readonly number[];
    };
    answer: { spareNumbers: number; uncommitted: number };
  };
  /** Finds chunks by fingerprint and SHA-256 and proves them by their bytes; 0, 0 where there is none. */
  packLocate: {
    ask: { session: number; fingerprints: Uint8Array; digests: Uint8Array };
    answer: { places: Uint32Array };
  };
  /** As packBatch, of pages that come from elsewhere: `digest` is the SHA-256 that their SHA-256s must have. */
  packReceived: {
    ask: {
      session: number;
      batch: SharedArrayBuffer;
      count: number;
      digest: Uint8Array;
      newNumbers: readonly number[];
    };
    answer: { spareNumbers: number };
  };
  /** Seals what has been written so far, so that it can be committed on its own. */
  packCheckpoint: { ask: { session: number }; answer: PackerResult };
  /** What was sealed by the last checkpoint has been committed: giving the session up leaves it. */
  packKeep: { ask: { session: number; findable: boolean }; answer: null };
  packSeal: { ask: { session: number }; answer: PackerResult };
  /** The save has been committed: its packs stay. */
  packEnd: { ask: { session: number }; answer: null };
  packAbort: { ask: { session: number }; answer: null };
  /** Begins reading snapshots; ends with readEnd. */
  readBegin: {
    ask: { session: number; dir: string; fingerprintBits: number; packs: PackList };
    answer: null;
  };
  /** Fills a batch's pages from its places and proves them by its fingerprints; `into`: writes them to a memory, too. */
  readBatch: {
    ask: {
      session: number;
      batch: SharedArrayBuffer;
      count: number;
      into: { memory: number; pages: Uint32Array } | null;
    };
    answer: null;
  };
  readEnd: { ask: { session: number }; answer: null };
  /** Writes a segment with the entries of others, without those that `gone` names; null: none are left. */
  mergeSegments: {
    ask: { dir: string; from: readonly SegmentRow[]; into: number; gone: readonly GoneChunks[] };
    answer: SegmentRow | null;
  };
  /** Writes a segment of what the packs list. Packs that cannot be read are left out. */
  buildSegment: { ask: { dir: string; packs: PackList; into: number }; answer: SegmentRow | null };
  /** The index lists the segment written under this number, or it was unlinked: its lock goes. */
  segmentEnd: { ask: { into: number }; answer: null };
  /** Looks for damage in a segment. */
  verifySegment: { ask: { dir: string; row: SegmentRow }; answer: PackProblem | null };
  /** Looks for damage in a pack. */
  verifyPack: {
    ask: { dir: string; pack: PackName; fingerprintBits: number; readData: boolean };
    answer: PackVerdict;
  };
  /** Writes the next generation of a pack, with the chunks whose bit is set; `dryRun`: only finds out its size. */
  rewritePack: {
    ask: { dir: string; pack: PackName; live: Uint8Array; dryRun: boolean };
    answer: SealedPack;
  };
}

/** A pack that is gone, or of which only the chunks with a bit in `live` are left. */
export interface GoneChunks {
  readonly pack: number;
  readonly live: Uint8Array | null;
}

export interface PackVerdict {
  /** What the footer says of the pack; null when it cannot be read. */
  readonly listed: { readonly chunks: number; readonly sizeBytes: number } | null;
  readonly problems: readonly PackProblem[];
}

export interface PackProblem {
  readonly file: string;
  readonly offset: number | null;
  readonly message: string;
  /** The numbers of the chunks that are lost; null: all of the pack. */
  readonly chunks: readonly number[] | null;
}

export type JobName = keyof Jobs;
export type Ask<N extends JobName> = Jobs[N]['ask'];
export type Answer<N extends JobName> = Jobs[N]['answer'];

export interface Request {
  readonly id: number;
  readonly name: JobName;
  readonly ask: unknown;
}

/** An error as it crosses threads. */
export interface PlainError {
  readonly message: string;
  readonly code?: string | undefined;
  readonly hint?: string | undefined;
  readonly damage?: { file: string; offset: number | null; why: string } | undefined;
  /** Of a {@link SystemError}; `isOfStore`: false when what is filled from the store failed, and not the store. */
  readonly native?: { syscall: string; errno: number; errnoName: string } | undefined;
  readonly isOfStore?: boolean;
  /** Of Node's errors. */
  readonly errno?: number | undefined;
  readonly syscall?: string | undefined;
  readonly path?: string | undefined;
  readonly dest?: string | undefined;
  readonly stack?: string | undefined;
}

export type Response =
  | { readonly id: number; readonly answer: unknown }
  | { readonly id: number; readonly error: PlainError };
