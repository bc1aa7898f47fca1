/**
 * Which pages of a machine may differ from its base: the snapshot it was last saved to or restored from.
 *
 * Invariant: a dirty bit fetched from KVM (which clears it there) stays here until a save that covers it has been
 * committed; a save that fails loses none.
 */
import { type KvmMachine, readDirtyLog, setMemorySlot } from '../native/kvm.js';
import { dataRanges } from '../native/memory.js';
import { PAGE_SIZE } from '../page-stream.js';
import type { MemorySlot } from './kvm/vm.js';
import { PageBitmap } from './page-bitmap.js';

export class DirtyPages {
  readonly #machine: KvmMachine;
  readonly #slots: readonly MemorySlot[];
  readonly #sinceBase: readonly PageBitmap[];
  #logging: boolean;
  #base: string | null;

  /** `base` null: nothing has been saved, every page counts as changed. */
  constructor(machine: KvmMachine, slots: readonly MemorySlot[], base: string | null, logging: boolean) {
    this.#machine = machine;
    this.#slots = slots;
    this.#base = base;
    this.#logging = logging;
    this.#sinceBase = slots.map(({ sizeBytes }) => new PageBitmap(sizeBytes / PAGE_SIZE));
  }

  /** The id of the snapshot that the pages are compared with. */
  get base(): string | null {
    return this.#base;
  }

  /** Begins a save: every page that the base does not account for (`full`: every page that is not a hole). */
  begin(full: boolean): PageBitmap[] {
    if (!this.#logging) {
      this.#slots.forEach((slot, index) => {
        setMemorySlot(this.#machine, index, { ...slot, logDirty: true });
      });
      this.#logging = true;
    }
    this.harvest();
    return this.#slots.map(({ sizeBytes, memory }, index) => {
      const pages = new PageBitmap(sizeBytes / PAGE_SIZE);
      if (!full) pages.addAll(this.#sinceBase[index]!);
      else {
        for (const { offset, length } of dataRanges(memory)) {
          pages.addRange(Math.floor(offset / PAGE_SIZE), Math.ceil(length / PAGE_SIZE));
        }
      }
      return pages;
    });
  }

  /** Fetches what the guest has written since the last call. */
  harvest(): PageBitmap[] {
    return this.#slots.map(({ sizeBytes }, index) => {
      const dirty = new PageBitmap(sizeBytes / PAGE_SIZE);
      readDirtyLog(this.#machine, index, dirty.bytes);
      this.#sinceBase[index]!.addAll(dirty);
      return dirty;
    });
  }

  /** A save is durable. Nothing was harvested after the moment it shows: what the guest wrote since is in KVM's log. */
  commit(id: string): void {
    this.#base = id;
    for (const bitmap of this.#sinceBase) bitmap.clear();
  }
}
