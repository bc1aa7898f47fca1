/**
 * Reads a whole machine for a save: its disks first, then its RAM up to the moment, then the blocks of the disks that were
 * written meanwhile.
 *
 * Thread: the main thread.
 *
 * Invariant: everything is of one moment, when the rest of the machine is captured (RamSource, DiskSource).
 */
import type { BitSet } from '../bit-set.js';
import type { PageRun, PageSource, Region } from '../page-stream.js';
import { DiskSource, type ReadBlocks, type SavedDisk } from './disk/disk-source.js';
import type { MemorySlot } from './kvm/vm.js';
import { RamSource } from './memory/ram-source.js';

/** How the source stops the machine for the moment of the snapshot. */
export interface SaveHooks {
  /** Parks the vCPUs. Does nothing if they are parked. */
  pause(): Promise<void>;
  /** Captures the rest, keeps these blocks of the disks as they are, and resumes the machine unless it stays paused. */
  captureAndContinue(frozen: readonly BitSet[]): Promise<void>;
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
  readonly hooks: SaveHooks;
}

export class MachineSource implements PageSource {
  readonly regions: readonly Region[];
  readonly sequential: readonly number[];
  readonly #disks: DiskSource;
  readonly #ram: RamSource;
  #isRamDone = false;

  constructor({ regions, slots, disks, pendingRam, harvest, readBlocks, hooks }: MachineSourceOptions) {
    this.regions = regions;
    this.sequential = disks.map((_, disk) => slots.length + disk);
    this.#disks = new DiskSource(disks, slots.length, readBlocks);
    this.#ram = new RamSource({
      regions,
      slots,
      pending: pendingRam,
      harvest: () => {
        const written = harvest();
        this.#disks.addWritten(written.slice(slots.length));
        return written.slice(0, slots.length);
      },
      hooks: {
        pause: hooks.pause,
        captureAndContinue: () => hooks.captureAndContinue(this.#disks.freeze()),
      },
    });
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
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
