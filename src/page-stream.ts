/**
 * The seam between the two halves of livesnap. src/vmm and src/store do not know each other: they meet only here.
 *
 *     save:     machine ── PageSource ──▶ SaveSession ──▶ store        state and description: SnapshotMetadata
 *     restore:  store ──▶ OpenSnapshot ── PageSink ──▶ machine
 *
 * What flows: the pages of named regions, in batches. A region is guest RAM (one per memory slot), a disk or a file. Per-page
 * calls, messages and locks would cost more than the pages. The machine's state is bytes that the store never reads.
 * A running machine reads single regions of a snapshot, such as a disk, with a handle of a native reader (OpenRegion).
 *
 * Threads: in the process of a machine, sources and sinks belong to the main thread and stores to the store thread. The
 * main thread holds a SaveTarget, SaveSession and OpenSnapshot that pass the calls on (src/server). `put` and `get` run
 * both sides on one thread. Each side awaits the other; neither blocks.
 *
 * Invariants:
 * - The source decides which pages are in a snapshot. The store decides how they are stored.
 * - Nothing of a save is visible before `commit` resolves. Afterwards it survives a power failure.
 * - A restore writes only verified pages.
 */

export const PAGE_BYTES = 4096;

/** The largest batch: 1 MiB of pages. */
export const BATCH_PAGES = 256;

// Pages

/** A named run of bytes. Page n is the {@link PAGE_BYTES} bytes from n × PAGE_BYTES on. */
export interface Region {
  /** Unique within a snapshot, such as `ram@0x0`, `disk0` or `file`. At most 64 of the characters `[a-z0-9@._-]`. */
  readonly name: string;
  /** A multiple of {@link PAGE_BYTES} for RAM. The last page of a disk or file may be short; it is padded with zeros. */
  readonly sizeBytes: number;
}

/** The pages in a batch: the bytes of `pages[i]` are at i × {@link PAGE_BYTES}. */
export interface PageRun {
  /** Index into `regions`. */
  readonly region: number;
  /** Page numbers within the region, ascending. At most {@link BATCH_PAGES}. */
  readonly pages: Uint32Array;
}

/** Where the pages of a save come from. */
export interface PageSource {
  /** Names and order never change. Sizes are final when `next` has returned null. */
  readonly regions: readonly Region[];
  /**
   * Indices of regions whose pages come in ascending order, each once. The store then keeps only the last part of their
   * manifests in memory. It is a hint: a page that comes late or again is right, but slower. It never changes.
   */
  readonly sequential?: readonly number[];
  /**
   * Copies the next pages into `into` (BATCH_PAGES × PAGE_BYTES bytes). Null: there are no more.
   *
   * A source may return a page again: the last copy counts. A page that it never returns is that of the region's base,
   * or zero if the region has none.
   *
   * A run without pages asks the store to end its work on all runs before it calls `next` again. A machine returns one
   * before its moment, when it needs the processors.
   */
  next(into: Uint8Array): Promise<PageRun | null>;
}

/** Where the pages of a restore go. */
export interface PageSink {
  /**
   * The regions to fill, by name, in any order. They may be larger than in the snapshot. Other regions of the snapshot
   * are not read.
   */
  readonly regions: readonly Region[];
  /**
   * Handles of guest memory (src/native/memory.ts), one per region, that is still zero. If they are set, the store fills
   * the memory from threads of its own, and never calls `write`.
   */
  readonly memories?: readonly number[];
  /**
   * Takes pages, each at most once and in any order. Pages of zeros are never written. `bytes` is valid until the call
   * returns, or its promise settles.
   */
  write(run: PageRun, bytes: Uint8Array): void | Promise<void>;
}

/** `totalBytes` is null if it is not known. */
export type Progress = (doneBytes: number, totalBytes: number | null) => void;

// Saving

/** A region of a snapshot that a region of a save may be stored relative to. It may have another name and size. */
export interface SaveBase {
  /** The ID of the snapshot. */
  readonly snapshot: string;
  readonly region: string;
}

/** A region that is about to be saved, and its possible bases, the best first. */
export interface SavedRegion {
  readonly region: string;
  readonly bases: readonly SaveBase[];
}

/** A store, as a machine sees it. */
export interface SaveTarget {
  /** Names the store within this process: its absolute path, without symbolic links. */
  readonly key: string;
  /**
   * Begins a save. Each region is stored relative to the first of its bases that the store has; the session says which.
   * A base that is removed counts as long as this process has its snapshot, or a region of it, open. A region that is
   * not listed has no base. Errors: USAGE if one of the `tags` is not valid, and those of the store.
   */
  beginSave(options: { regions: readonly SavedRegion[]; tags?: readonly string[] }): Promise<SaveSession>;
}

/** A save in progress. `commit` or `abort` ends it. If `store` or `commit` fails, call `abort`. */
export interface SaveSession {
  /**
   * For each region given to `beginSave`, the index of its base in `bases`. Null: the region is stored in full, since no
   * base was given, or each is removed or damaged.
   */
  readonly bases: readonly (number | null)[];
  /** The ID of the snapshot that is the base of the first region; the snapshot's parent. */
  readonly parent: string | null;
  /**
   * Stores all pages of a source. It may be called again, with a source that has the same regions. Errors: DAMAGED if a
   * base cannot be read; begin again without it.
   */
  store(source: PageSource, progress?: Progress): Promise<void>;
  /** Makes the snapshot exist. */
  commit(metadata: SnapshotMetadata): Promise<SaveResult>;
  /** Deletes what was stored. Never fails. */
  abort(): Promise<void>;
}

/** A tag that named another snapshot before. */
export interface MovedTag {
  readonly tag: string;
  /** The ID of that snapshot. */
  readonly from: string;
}

export interface SaveResult {
  readonly id: string;
  /** Sorted. */
  readonly tags: readonly string[];
  /** Those of the tags that named other snapshots before. */
  readonly movedTags: readonly MovedTag[];
  readonly parent: string | null;
  /** Pages of all regions: zeroPages + unchangedPages + newChunks + reusedChunks. */
  readonly pages: number;
  readonly zeroPages: number;
  /** Pages that are the same as in the bases. */
  readonly unchangedPages: number;
  /** Pages that were stored. */
  readonly newChunks: number;
  /** Pages that were found in the store. */
  readonly reusedChunks: number;
  readonly storedBytes: number;
}

// Restoring

/** A snapshot opened for reading. The store keeps its data until `close`, even if the snapshot is removed. */
export interface OpenSnapshot {
  readonly summary: SnapshotSummary;
  readonly metadata: SnapshotMetadata;
  readonly regions: readonly Region[];
  /** Writes all pages of the sink's regions that are not zero to the sink. Errors: DAMAGED. */
  fill(sink: PageSink, progress?: Progress): Promise<void>;
  /**
   * Opens a region to be read on demand. It stays open when the snapshot is closed. Errors: NO_SUCH_REGION, DAMAGED,
   * SYSTEM.
   */
  openRegion(name: string): Promise<OpenRegion>;
  close(): void;
}

/**
 * A region of a snapshot that is read on demand. Its data stays in the store until `close`, even if the snapshot is
 * removed. It delays neither gc nor repair.
 */
export interface OpenRegion {
  readonly sizeBytes: number;
  /** Handle of a native reader (src/native/region-reader.ts), for any thread of this process, until `close`. */
  readonly reader: number;
  /** Call it when nothing reads any more. */
  close(): void;
}

// Snapshots

/** `disk`: the disks of a machine, without its RAM and state. */
export type SnapshotKind = 'machine' | 'file' | 'disk';

/** A row of the list of snapshots. */
export interface SnapshotSummary {
  /** 32 lower-case hexadecimal digits. */
  readonly id: string;
  /** Sorted. */
  readonly tags: readonly string[];
  readonly kind: SnapshotKind;
  /** The machine's name, or the file's base name. */
  readonly vm: string | null;
  readonly parent: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  /** Size of guest RAM, or of the file. 0 for disks. */
  readonly memoryBytes: number;
  /** Size of all disks. */
  readonly diskBytes: number;
  /** Bytes that the save added to the store, without the index. */
  readonly storedBytes: number;
  /** Those of the machine, by key. None for a file. */
  readonly labels: Readonly<Record<string, string>>;
  /** How long the save paused the machine. Null: the machine did not run, or it is not known. */
  readonly pauseMs: number | null;
}

/** What a snapshot has beside its pages. The store keeps it, and interprets nothing of it but what it lists: labels and the pause. */
export interface SnapshotMetadata {
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly tags: readonly string[];
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** The machine's configuration, as JSON data that `show` prints; `labels` and `pauseMs` in it are listed. Null for a file. */
  readonly machine: unknown;
  /** The host, likewise. */
  readonly host: unknown;
  /** The machine's state, at most 64 MiB. Empty for a file and for disks. */
  readonly state: Uint8Array;
}
