/**
 * The jobs of a page Worker, as messages: plain data, with batches in shared memory.
 *
 * Invariants:
 * - A Worker runs its jobs one at a time, in the order of their requests.
 * - A session (a save, or the reading of a snapshot) is a number that the caller chooses. It stays with one Worker.
 */
import type { Region } from '../../page-stream.js';
import type { PackName } from '../pack/pack-format.js';
import type { SealedPack } from '../pack/pack-writer.js';
import type { SegmentRow } from '../segment/segment-file.js';
import type { JobError } from './job-errors.js';
import type { PackerResult } from './packer.js';

/** Packs that a job may read, as pairs of number and generation. */
export type PackList = Uint32Array;

/** Each job as a function from its input to its output. */
export interface Jobs {
  /** Begins a save, or begins it again with a newer list of segments. Returns the segments that could not be mapped. */
  packBegin(input: {
    session: number;
    dir: string;
    fingerprintBits: number;
    /** The ID of the digests of new packs. */
    digest: number;
    packs: PackList;
    segments: readonly SegmentRow[];
  }): { missing: readonly number[] };

  /**
   * Deduplicates a batch and stores its new pages. `newNumbers` are for the packs that it may begin; `spareNumbers`
   * tells how many of them are left.
   */
  packBatch(input: {
    session: number;
    batch: SharedArrayBuffer;
    count: number;
    /** The pages are manifest blocks. */
    manifest: boolean;
    newNumbers: readonly number[];
  }): { spareNumbers: number; uncommitted: number };

  /** Stores the chunks at a batch's prior places once more, unless one is damaged, and sets the new places. */
  packAgain(input: {
    session: number;
    batch: SharedArrayBuffer;
    count: number;
    newNumbers: readonly number[];
  }): { spareNumbers: number };

  /** Reads the chunks at a batch's places, which this session has stored. Errors: DAMAGED. */
  packRead(input: { session: number; batch: SharedArrayBuffer; count: number }): null;

  /** Finds chunks by fingerprint and digest, all under one ID, and verifies them by their bytes. 0, 0: not found. */
  packLocate(input: { session: number; fingerprints: Uint8Array; digests: Uint8Array; id: number }): {
    places: Uint32Array;
  };

  /**
   * As `packBatch`, for pages from another store. `ids`: the ID of each page's digest. `digest`: the expected SHA-256 of
   * their digests.
   */
  packReceived(input: {
    session: number;
    batch: SharedArrayBuffer;
    ids: Uint8Array;
    digest: Uint8Array;
    newNumbers: readonly number[];
  }): { spareNumbers: number };

  /** Seals the packs written since the last checkpoint, so that they can be committed without a snapshot. */
  packCheckpoint(input: { session: number }): PackerResult;

  /** The packs of the last checkpoint are committed: aborting the session no longer deletes them. */
  packKeep(input: { session: number; findable: boolean }): null;

  /** Seals the last packs of a save. */
  packSeal(input: { session: number }): PackerResult;

  /** Ends a session whose packs are committed. */
  packEnd(input: { session: number }): null;

  /** Ends a session and deletes its packs that are not committed. */
  packAbort(input: { session: number }): null;

  /** Begins to read snapshots. */
  readBegin(input: { session: number; dir: string; fingerprintBits: number; packs: PackList }): null;

  /** Reads the pages at a batch's places and verifies them by its fingerprints. Errors: DAMAGED. */
  readBatch(input: { session: number; batch: SharedArrayBuffer; run: ReadRun }): null;

  readEnd(input: { session: number }): null;

  /** Merges segments, without the chunks in `gone`. Null: no entry is left. */
  mergeSegments(input: {
    dir: string;
    from: readonly SegmentRow[];
    into: number;
    gone: readonly GoneChunks[];
  }): SegmentRow | null;

  /** Builds a segment from the packs' own lists. Packs that cannot be read are left out. Null: no entry. */
  buildSegment(input: { dir: string; packs: PackList; into: number }): SegmentRow | null;

  /** Releases the lock of a segment that the index lists now, or that was deleted. */
  segmentEnd(input: { into: number }): null;
  /** Unmaps the segments that are kept for the next save. */
  forgetSegments(input: null): null;

  /** Looks for damage in a segment. */
  verifySegment(input: { dir: string; row: SegmentRow }): PackProblem | null;

  /** Looks for damage in a pack. */
  verifyPack(input: { dir: string; pack: PackName; fingerprintBits: number; readData: boolean }): PackVerdict;

  /**
   * Writes the next generation of a pack, with the chunks whose bit is set, and proves them. `recompress`: with LZ4-HC.
   * `dryRun`: computes only the size; with `recompress` it is an estimate.
   */
  rewritePack(input: {
    dir: string;
    pack: PackName;
    live: Uint8Array;
    recompress: boolean;
    dryRun: boolean;
  }): SealedPack;
}

/** Pages of a region of a snapshot, by number. */
export interface ReadRun {
  readonly snapshot: string;
  readonly region: Region;
  readonly pages: Uint32Array;
}

/** A pack that is gone, or of which only the chunks with a bit in `live` are left. */
export interface GoneChunks {
  readonly pack: number;
  readonly live: Uint8Array | null;
}

export interface PackVerdict {
  /** Chunks and size according to the footer; null when it cannot be read. */
  readonly listed: { readonly chunks: number; readonly sizeBytes: number } | null;
  readonly problems: readonly PackProblem[];
}

export interface PackProblem {
  readonly file: string;
  readonly offset: number | null;
  readonly message: string;
  /** Numbers of the lost chunks; null: all chunks of the pack. */
  readonly chunks: readonly number[] | null;
}

export type JobName = keyof Jobs;
export type JobInput<N extends JobName> = Parameters<Jobs[N]>[0];
export type JobOutput<N extends JobName> = ReturnType<Jobs[N]>;

/** What a page Worker is started with. */
export interface PageWorkerData {
  readonly cancelFlag: SharedArrayBuffer;
  /** Whether it uses only processor and disk time that nothing else wants. */
  readonly isIdle: boolean;
}

export interface JobRequest {
  readonly id: number;
  readonly name: JobName;
  readonly input: unknown;
}

export type JobResponse =
  | { readonly id: number; readonly output: unknown }
  | { readonly id: number; readonly error: JobError };
