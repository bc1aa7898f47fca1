/**
 * What the store tells and takes: the plain data of its public interface (class Store in store.ts).
 * Field names are those of the JSON that the command line prints; bytes and milliseconds are in the names.
 */

export type SnapshotKind = 'machine' | 'file';

export interface SnapshotSummary {
  /** 32 lower-case hexadecimal digits. */
  readonly id: string;
  readonly tag: string | null;
  readonly kind: SnapshotKind;
  /** The machine's name, or the file's base name. */
  readonly vm: string | null;
  readonly parent: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** Size of guest RAM, or of the file. */
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** What this save appended to packs and snapshots/; the index is left out. */
  readonly storedBytes: number;
}

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

/** What a machine's state is to the store: opaque, checked, kept whole. */
export interface SnapshotMetadata {
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly tag: string | null;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** Plain JSON data shown by `show`. */
  readonly machine: unknown;
  readonly host: unknown;
  /** The machine's state, any bytes (at most 64 MiB). Empty for a file. */
  readonly state: Uint8Array;
}

/** What giving a snapshot a tag took from others. */
export interface TagMove {
  /** The snapshot that had the tag before. */
  readonly movedFrom: string | null;
  /** The tag that the snapshot had before. */
  readonly replacedTag: string | null;
}

export interface SaveResult {
  readonly id: string;
  readonly tag: string | null;
  /** The snapshot that had the tag before. */
  readonly movedFrom: string | null;
  readonly parent: string | null;
  /** Pages of all regions. */
  readonly pages: number;
  readonly zeroPages: number;
  /** Pages taken over from the parent, whether or not they were looked at. */
  readonly unchangedPages: number;
  readonly newChunks: number;
  readonly reusedChunks: number;
  readonly storedBytes: number;
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

/** Called with what is done so far; `totalBytes` is null while it cannot be known. */
export type Progress = (doneBytes: number, totalBytes: number | null) => void;
