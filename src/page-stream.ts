/**
 * The seam between the two halves of livesnap: pages flow from a {@link PageSource} into a store when something
 * is saved, and from a store into a {@link PageSink} when it is restored. src/vmm and src/store meet here only.
 *
 * A page is 4096 bytes at an address of a region; a region is a run of bytes with a name (a RAM slot, a disk, a
 * file). Pages travel in batches so that no call, message or lock is ever made per page.
 */

export const PAGE_BYTES = 4096;
/** The former name, until every user has the new one. */
export const PAGE_SIZE = PAGE_BYTES;

/** The most pages one batch holds: 256 pages, 1 MiB. */
export const BATCH_PAGES = 256;

export interface Region {
  /** Unique within a snapshot: `ram@0x0`, `ram@0x100000000`, `file`. At most 64 bytes of `[a-z0-9@._-]`. */
  readonly name: string;
  /** For RAM a multiple of {@link PAGE_SIZE}; a file's last page may be short (it is given padded with zeros). */
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
   * Copies the next batch of pages into `into` (BATCH_PAGES × PAGE_SIZE bytes, the page `pages[i]` at `i` ×
   * PAGE_SIZE) and says which they are; null when every page has been given. The copy is of one moment: what
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
