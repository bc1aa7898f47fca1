/**
 * Reads disks for a save: once while the machine runs, and again the blocks that were written until the moment.
 *
 * Thread: the main thread. The device thread reads the blocks.
 *
 * Invariants:
 * - All blocks together are of one moment: what was written between the first reading and the moment is read again, as
 *   it was at the moment.
 * - Memory does not grow with the disks, but for one bit a block.
 */
import { BitSet } from '../../bit-set.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun } from '../../page-stream.js';

/** A disk in a save. */
export interface SavedDisk {
  readonly sizeBytes: number;
  /** The blocks that the base of the region does not account for. It is emptied. */
  readonly pending: BitSet;
}

/** Reads blocks, ascending, and copies them one behind the other; bytes after the end of the disk are zeros. */
export type ReadBlocks = (disk: number, blocks: Uint32Array, into: Uint8Array) => Promise<void>;

export class DiskSource {
  readonly #firstRegion: number;
  readonly #read: ReadBlocks;
  readonly #late: readonly BitSet[];
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #pending: readonly BitSet[];
  #disk = 0;
  #cursor = 0;

  /** Region `firstRegion + i` is disk `i`. */
  constructor(disks: readonly SavedDisk[], firstRegion: number, read: ReadBlocks) {
    this.#firstRegion = firstRegion;
    this.#read = read;
    this.#pending = disks.map(({ pending }) => pending);
    this.#late = this.#pending.map(({ size }) => new BitSet(size));
  }

  /** Copies the next blocks; null: no more before {@link freeze}, or at all after it. */
  async next(into: Uint8Array): Promise<PageRun | null> {
    for (; this.#disk < this.#pending.length; this.#disk++, this.#cursor = 0) {
      const count = this.#pending[this.#disk]!.take(this.#cursor, this.#batch, BATCH_PAGES);
      if (count === 0) continue;
      const pages = this.#batch.slice(0, count);
      this.#cursor = pages[count - 1]!;
      await this.#read(this.#disk, pages, into.subarray(0, count * PAGE_BYTES));
      return { region: this.#firstRegion + this.#disk, pages };
    }
    return null;
  }

  /** Blocks that were written since the save began, by disk. */
  addWritten(written: readonly BitSet[]): void {
    written.forEach((blocks, disk) => {
      this.#late[disk]!.addAll(blocks);
    });
  }

  /** The blocks that are still to be read, if the moment is now; by disk. */
  get late(): readonly BitSet[] {
    this.#late.forEach((late, disk) => {
      late.addAll(this.#pending[disk]!);
    });
    return this.#late;
  }

  /** The moment has been. The blocks that are still to be read are kept as they were then. */
  freeze(): void {
    this.#pending = this.late;
    this.#disk = 0;
    this.#cursor = 0;
  }
}
