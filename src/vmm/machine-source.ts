/**
 * Reads a whole machine for a save: its disks first, then its RAM up to the moment, then the blocks of the disks that were
 * written meanwhile.
 *
 * Thread: the main thread.
 *
 * Invariant: everything is of one moment, when the rest of the machine is captured (RamSource, DiskSource).
 */
import type { BitSet } from '../bit-set.js';
import { PAGE_BYTES, type PageRun, type PageSource, type Region } from '../page-stream.js';
import { DiskSource, type ReadBlocks, type SavedDisk } from './disk/disk-source.js';
import type { MemorySlot } from './kvm/vm.js';
import type { AsidePart } from './memory/moment-pages.js';
import { RamSource } from './memory/ram-source.js';

/** What a moment gives. */
export interface Moment {
  /** What was written since the last harvest, by region. */
  readonly written: readonly BitSet[];
  /** As of RamMoment. */
  readonly aside: readonly AsidePart[] | null;
}

export interface MomentOptions {
  /** The pages of each slot that are not given yet. */
  readonly pending: readonly BitSet[];
  /** The blocks of each disk that are still to be read as they are at the moment; those written meanwhile join them. */
  readonly late: readonly BitSet[];
  readonly room: SharedArrayBuffer;
}

export interface MachineSourceOptions {
  /** The slots, then the disks. */
  readonly regions: readonly Region[];
  readonly slots: readonly MemorySlot[];
  readonly disks: readonly SavedDisk[];
  /** The pages of each slot that the base does not account for. */
  readonly pendingRam: readonly BitSet[];
  /** Fetches what was written since the last call, by region. */
  harvest(): readonly BitSet[];
  readonly readBlocks: ReadBlocks;
  /** Captures the machine (ram-source.ts, CaptureMoment), and keeps the late blocks as they are. */
  readonly capture: (options: MomentOptions) => Promise<Moment>;
}

const countAll = (sets: readonly BitSet[]): number => sets.reduce((sum, set) => sum + set.count(), 0);

export class MachineSource implements PageSource {
  readonly regions: readonly Region[];
  readonly sequential: readonly number[];
  readonly #disks: DiskSource;
  readonly #ram: RamSource;
  #isRamDone = false;
  #givenPages = 0;
  #expectedPages: number;

  constructor({ regions, slots, disks, pendingRam, harvest, readBlocks, capture }: MachineSourceOptions) {
    this.regions = regions;
    this.sequential = disks.map((_, disk) => slots.length + disk);
    this.#expectedPages = countAll([...pendingRam, ...disks.map(({ pending }) => pending)]);
    this.#disks = new DiskSource(disks, slots.length, readBlocks);
    this.#ram = new RamSource({
      regions,
      slots,
      pending: pendingRam,
      harvest: () => {
        const written = harvest();
        this.#disks.addWritten(written.slice(slots.length));
        const ram = written.slice(0, slots.length);
        this.#expect(countAll(ram));
        return ram;
      },
      capture: async (pending, room) => {
        const { written, aside } = await capture({ pending, late: this.#disks.late, room });
        this.#disks.addWritten(written.slice(slots.length));
        if (aside !== null) {
          this.#expect(aside.reduce((sum, part) => sum + part.pages.length, 0));
          this.#disks.freeze();
        }
        return { written: written.slice(0, slots.length), aside };
      },
    });
  }

  /** The pages of RAM that are left. Every round but the first is of pages that were written meanwhile. */
  #expect(ramPages: number): void {
    this.#expectedPages = this.#givenPages + ramPages + countAll(this.#disks.late);
  }

  /** How much the whole save gives, as far as it is known: more, if the guest goes on writing. */
  get expectedBytes(): number {
    return Math.max(this.#expectedPages, this.#givenPages) * PAGE_BYTES;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const run = await this.#next(into);
    this.#givenPages += run?.pages.length ?? 0;
    return run;
  }

  async #next(into: Uint8Array): Promise<PageRun | null> {
    if (!this.#isRamDone) {
      const run = (await this.#disks.next(into)) ?? (await this.#ram.next(into));
      if (run !== null) return run;
      this.#isRamDone = true;
    }
    return this.#disks.next(into);
  }

  /** How much RAM was given while the vCPUs were parked: nothing, unless the guest writes a lot. */
  get storedWhilePausedBytes(): number {
    return this.#ram.storedWhilePausedBytes;
  }
}
