/**
 * What the store tells and takes: the plain data of its public interface (class Store in store.ts).
 * Field names are those of the JSON that the command line prints; bytes and milliseconds are in the names.
 */

import type { SnapshotSummary } from '../page-stream.js';

export type {
  Progress,
  SaveResult,
  SnapshotKind,
  SnapshotMetadata,
  SnapshotSummary,
} from '../page-stream.js';

export interface RegionSummary {
  readonly name: string;
  readonly sizeBytes: number;
  readonly nonZeroPages: number;
}

export interface SnapshotDetails extends SnapshotSummary {
  readonly regions: readonly RegionSummary[];
  /** What `rm` of this snapshot and `gc` would free. */
  readonly uniqueBytes: number;
  /** The machine's configuration as saved (null for a file). */
  readonly machine: unknown;
  readonly host: unknown;
}

export interface StoreStats {
  readonly snapshots: number;
  readonly logicalBytes: number;
  readonly nonZeroBytes: number;
  /** Bytes of all distinct chunks in use, uncompressed. */
  readonly uniqueBytes: number;
  /** storedBytes + indexBytes is what `du -b` says of the directory, within 1%. */
  readonly storedBytes: number;
  readonly indexBytes: number;
  readonly deadBytes: number;
  readonly chunks: number;
  readonly packs: number;
  /** logicalBytes / (storedBytes + indexBytes). */
  readonly ratio: number;
}

/** What giving a snapshot a tag took from others. */
export interface TagMove {
  /** The snapshot that had the tag before. */
  readonly movedFrom: string | null;
  /** The tag that the snapshot had before. */
  readonly replacedTag: string | null;
}

export interface CheckOptions {
  /** False: structure only. True: every byte. A part: of so many parts of the packs' bytes, those not read for longest. */
  readonly readData: boolean | { readonly part: number; readonly of: number };
}

/** Bytes of a region that cannot be had any more; `toBytes` is the first byte after them. */
export interface LostRange {
  readonly snapshot: string;
  readonly tag: string | null;
  readonly region: string;
  readonly fromBytes: number;
  readonly toBytes: number;
}

export interface RepairResult {
  /** What was done and found, a sentence each. */
  readonly actions: string[];
  /** Chunks that got their bytes back from another one with the same SHA-256. */
  readonly healedChunks: number;
  /** What of the snapshots is lost. */
  readonly lost: LostRange[];
}

export interface Problem {
  readonly file: string;
  readonly offset: number | null;
  readonly snapshots: readonly string[];
  readonly message: string;
}
