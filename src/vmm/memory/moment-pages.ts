/**
 * The pages of a machine at the moment of a save: what was written since the last harvest, and copies of the pages that the
 * save has not stored yet.
 *
 * Thread: the device thread, in the pause.
 *
 * Invariants:
 * - What the guest wrote is copied when the vCPUs are parked, while devices may still end their requests. A page that a
 *   device writes meanwhile is copied again when the devices are frozen. The last copy counts.
 * - Memory is bounded: beyond {@link MAX_ASIDE_PAGES} nothing is copied, and the machine must stay paused.
 */
import type { BitSet } from '../../bit-set.js';
import { copyPages } from '../../native/memory.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';

/** The most pages that are copied aside: 64 MiB, which takes about 0.1 s of the pause. */
export const MAX_ASIDE_PAGES = 16384;

/** Pages of one slot, and their bytes in shared memory. */
export interface AsidePart extends PageRun {
  readonly bytes: Uint8Array;
}

export class MomentPages {
  readonly #slots: readonly MemorySlot[];
  /** The pages of each slot that are neither stored nor copied. */
  readonly #left: readonly BitSet[];
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #room: SharedArrayBuffer;
  #roomBytes = 0;
  #aside: AsidePart[] | null = [];

  /**
   * @param pending the pages of each slot that the save has not stored; they are emptied
   * @param room memory for the copies; more is allocated if it does not suffice
   */
  constructor(slots: readonly MemorySlot[], pending: readonly BitSet[], room: SharedArrayBuffer) {
    this.#slots = slots;
    this.#left = pending;
    this.#room = room;
  }

  /** The copies; null: there are too many pages. */
  get aside(): readonly AsidePart[] | null {
    return this.#aside;
  }

  /** Copies what is pending and these pages, by slot. */
  copy(written: readonly BitSet[]): void {
    let count = 0;
    this.#left.forEach((left, slot) => {
      left.addAll(written[slot]!);
      count += left.count();
    });
    if (count > MAX_ASIDE_PAGES) this.#aside = null;
    if (this.#aside === null) return;
    for (let slot = 0; slot < this.#left.length; slot++) {
      for (let cursor = 0; ; ) {
        const taken = this.#left[slot]!.take(cursor, this.#batch, BATCH_PAGES);
        if (taken === 0) break;
        const pages = this.#batch.slice(0, taken);
        cursor = pages[taken - 1]!;
        const bytes = this.#roomFor(taken * PAGE_BYTES);
        copyPages(this.#slots[slot]!.memory, pages, bytes);
        this.#aside.push({ region: slot, pages, bytes });
      }
    }
  }

  #roomFor(bytes: number): Uint8Array {
    if (bytes > this.#room.byteLength - this.#roomBytes) {
      this.#room = new SharedArrayBuffer(BATCH_PAGES * PAGE_BYTES);
      this.#roomBytes = 0;
    }
    const room = new Uint8Array(this.#room, this.#roomBytes, bytes);
    this.#roomBytes += bytes;
    return room;
  }
}
