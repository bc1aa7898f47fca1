/**
 * The pages of a machine that may differ from its base: the snapshot that it was last saved to or restored from.
 *
 * Thread: the main thread.
 *
 * Invariant: fetching a dirty bit clears it in KVM, so it stays here until a save that covers it is committed. A failed
 * save loses none.
 */
import { BitSet } from '../../bit-set.js';
import { type KvmMachine, readDirtyLog, setMemorySlot } from '../../native/kvm.js';
import { dataRanges } from '../../native/memory.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';
import { WrittenPages } from './written-pages.js';

export class DirtyPages {
  readonly #machine: KvmMachine;
  readonly #slots: readonly MemorySlot[];
  readonly #sinceBase: readonly BitSet[];
  #logging: boolean;
  #base: string | null;

  /**
   * With `base` null nothing has been saved, so every page counts as changed. `logging`: KVM logs the guest's writes
   * already.
   */
  constructor(machine: KvmMachine, slots: readonly MemorySlot[], base: string | null, logging: boolean) {
    this.#machine = machine;
    this.#slots = slots;
    this.#base = base;
    this.#logging = logging;
    this.#sinceBase = slots.map(({ sizeBytes }) => new BitSet(sizeBytes / PAGE_BYTES));
  }

  /** The ID of the snapshot that the pages are compared with. */
  get base(): string | null {
    return this.#base;
  }

  /** Begins a save. Returns the pages that may differ from the base, or every page that is not a hole (`full`). */
  begin(full: boolean): BitSet[] {
    if (!this.#logging) {
      this.#slots.forEach((slot, index) => {
        setMemorySlot(this.#machine, index, { ...slot, logDirty: true });
      });
      this.#logging = true;
    }
    this.harvest();
    return this.#slots.map(({ sizeBytes, memory }, index) => {
      const pages = new BitSet(sizeBytes / PAGE_BYTES);
      if (!full) pages.addAll(this.#sinceBase[index]!);
      else {
        for (const { offset, length } of dataRanges(memory)) {
          pages.addRange(Math.floor(offset / PAGE_BYTES), Math.ceil(length / PAGE_BYTES));
        }
      }
      return pages;
    });
  }

  /** Fetches the pages that the guest and the devices have written since the last call. */
  harvest(): BitSet[] {
    return this.#slots.map(({ sizeBytes, written }, index) => {
      const dirty = new BitSet(sizeBytes / PAGE_BYTES);
      readDirtyLog(this.#machine, index, dirty.bytes);
      new WrittenPages(written).moveTo(dirty);
      this.#sinceBase[index]!.addAll(dirty);
      return dirty;
    });
  }

  /**
   * Makes a committed save the new base. No page was harvested since its moment: those that were written later are
   * still in KVM's log.
   */
  commit(id: string): void {
    this.#base = id;
    for (const bitmap of this.#sinceBase) bitmap.clear();
  }
}
