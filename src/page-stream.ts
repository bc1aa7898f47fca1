/**
 * The seam between the two halves of livesnap: pages flow from a {@link PageSource} into a store when something
 * is saved, and from a store into a {@link PageSink} when it is restored. src/vmm and src/store meet here only.
 *
 * A page is 4096 bytes at an address of a region; a region is a run of bytes with a name (a RAM slot, a disk, a
 * file). Pages travel in batches so that no call, message or lock is ever made per page.
 */

export const PAGE_BYTES = 4096;

/** The most pages one batch holds: 256 pages, 1 MiB. */
export const BATCH_PAGES = 256;

export interface Region {
  /** Unique within a snapshot: `ram@0x0`, `ram@0x100000000`, `file`. At most 64 bytes of `[a-z0-9@._-]`. */
  readonly name: string;
  /** For RAM a multiple of {@link PAGE_BYTES}; a file's last page may be short (it is given padded with zeros). */
  readonly sizeBytes: number;
}

/** Which pages the bytes of a batch are. */
export interface PageRun {
  /** Index into `regions`. */
  readonly region: number;
  /** Page numbers within the region, ascending, at most {@link BATCH_PAGES}. */
  readonly pages: Uint32Array;
}

export interface PageSource {
  /** Fixed in number and name from the start; sizes are final once `next` has returned null. */
  readonly regions: readonly Region[];
  /**
   * Copies the next batch of pages into `into` (BATCH_PAGES × PAGE_BYTES bytes, the page `pages[i]` at `i` ×
   * PAGE_BYTES) and says which they are; null when every page has been given. The copy is of one moment: what
   * it came from may change afterwards. A page given again replaces what was given before. A page never given
   * is the parent snapshot's, or zero where there is no parent.
   */
  next(into: Uint8Array): Promise<PageRun | null>;
}

export interface PageSink {
  readonly regions: readonly Region[];
  /**
   * Where the regions are guest memory: its handles (src/native/memory.ts), one a region. A store may then write pages
   * there itself, from any Worker, and need not call `write`.
   */
  readonly memories?: readonly number[];
  /**
   * Takes pages that are not zero, each at most once, in no particular order; all others are zero and are
   * never written. `bytes` is valid only until the call returns (or its promise settles).
   */
  write(run: PageRun, bytes: Uint8Array): void | Promise<void>;
}

/** Called with what is done so far; `totalBytes` is null while it cannot be known. */
export type Progress = (doneBytes: number, totalBytes: number | null) => void;

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

/** A save under way. Exactly one of `commit` and `abort` ends it; after a failed `store` or `commit`, call `abort`. */
export interface SaveSession {
  /** The snapshot this save is relative to; null when it is full (none was asked for, or it is gone). */
  readonly parent: string | null;
  /** Stores what the source gives; may be called more than once with sources of the same regions. */
  store(source: PageSource, progress?: Progress): Promise<void>;
  /** The one commit point: when it resolves the snapshot exists and survives a power cut. */
  commit(metadata: SnapshotMetadata): Promise<SaveResult>;
  /** Gives the save up; nothing of it is visible. */
  abort(): Promise<void>;
}

/** What a machine is saved to. */
export interface SaveTarget {
  /** Full when `parent` is null or no longer there. A `tag` that cannot be given is refused here: USAGE. */
  beginSave(options: { parent: string | null; tag?: string | null }): Promise<SaveSession>;
}

/** A snapshot opened for reading; what it needs stays in the store until `close`. */
export interface OpenSnapshot {
  readonly summary: SnapshotSummary;
  readonly metadata: SnapshotMetadata;
  readonly regions: readonly Region[];
  /** Writes every page that is not zero to the sink; all of it is verified. Errors: DAMAGED. */
  fill(sink: PageSink, progress?: Progress): Promise<void>;
  close(): void;
}
