/**
 * The seam between the two halves of livesnap. src/vmm and src/store do not know each other: they meet only here.
 *
 *     save:     machine ── PageSource ──▶ SaveSession ──▶ store        state and description: SnapshotMetadata
 *     restore:  store ──▶ OpenSnapshot ── PageSink ──▶ machine
 *
 * What flows: the pages of named regions, in batches. A region is guest RAM (one per memory slot) or a file. Per-page
 * calls, messages and locks would cost more than the pages. The machine's state is bytes that the store never reads.
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
  /** Unique within a snapshot, such as `ram@0x0` or `file`. At most 64 of the characters `[a-z0-9@._-]`. */
  readonly name: string;
  /** A multiple of {@link PAGE_BYTES} for RAM. The last page of a file may be short; it is padded with zeros. */
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
   * Copies the next pages into `into` (BATCH_PAGES × PAGE_BYTES bytes). Null: there are no more.
   *
   * A source may return a page again: the last copy counts. A page that it never returns is the parent's, or zero if
   * there is no parent.
   */
  next(into: Uint8Array): Promise<PageRun | null>;
}

/** Where the pages of a restore go. */
export interface PageSink {
  /** The regions of the snapshot, by name, in any order. They may be larger. */
  readonly regions: readonly Region[];
  /**
   * Handles of guest memory (src/native/memory.ts), one per region. If they are set, the store writes to the memory
   * from its own Workers, and never calls `write`.
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

/** A store, as a machine sees it. */
export interface SaveTarget {
  /**
   * Begins a save relative to the snapshot with the ID `parent`. Errors: USAGE if `tag` is not a valid tag, and those
   * of the store.
   */
  beginSave(options: { parent: string | null; tag?: string | null }): Promise<SaveSession>;
}

/** A save in progress. `commit` or `abort` ends it. If `store` or `commit` fails, call `abort`. */
export interface SaveSession {
  /** The parent's ID. Null: the save is full, since no parent was given, or it is removed or damaged. */
  readonly parent: string | null;
  /** Stores all pages of a source. It may be called again, with a source that has the same regions. */
  store(source: PageSource, progress?: Progress): Promise<void>;
  /** Makes the snapshot exist. */
  commit(metadata: SnapshotMetadata): Promise<SaveResult>;
  /** Deletes what was stored. Never fails. */
  abort(): Promise<void>;
}

export interface SaveResult {
  readonly id: string;
  readonly tag: string | null;
  /** The snapshot from which the tag was moved. */
  readonly movedFrom: string | null;
  readonly parent: string | null;
  /** Pages of all regions: zeroPages + unchangedPages + newChunks + reusedChunks. */
  readonly pages: number;
  readonly zeroPages: number;
  /** Pages that are the same as in the parent. */
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
  /** Writes all pages that are not zero to the sink. Errors: DAMAGED. */
  fill(sink: PageSink, progress?: Progress): Promise<void>;
  close(): void;
}

// Snapshots

export type SnapshotKind = 'machine' | 'file';

/** A row of the list of snapshots. */
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
  /** Bytes that the save added to the store, without the index. */
  readonly storedBytes: number;
}

/** What a snapshot has beside its pages. The store keeps it and does not interpret it. */
export interface SnapshotMetadata {
  readonly kind: SnapshotKind;
  readonly vm: string | null;
  readonly tag: string | null;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** The machine's configuration, as JSON data that `show` prints. Null for a file. */
  readonly machine: unknown;
  /** The host, likewise. */
  readonly host: unknown;
  /** The machine's state, at most 64 MiB. Empty for a file. */
  readonly state: Uint8Array;
}
