/**
 * Guest RAM by guest-physical address, for the boot loader and for devices.
 *
 * Thread: any. Each thread makes a {@link GuestRam} of its own over the same slots.
 *
 * Invariants:
 * - An access lies within one slot, so it never crosses the hole below 4 GiB. The bounds are checked here.
 * - A page is marked as written after its bytes are in place, so that a save that finds the mark reads the bytes.
 */
import { readMemory, writeMemory } from '../../native/memory.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { RamSlot } from '../boot/memory-layout.js';
import type { MemorySlot } from '../kvm/vm.js';
import { WrittenPages } from './written-pages.js';

export interface GuestMemory {
  /** Ascending by address, without overlap. */
  readonly layout: readonly RamSlot[];
  /**
   * Fills `into` with guest memory from `gpa` on.
   * @throws RangeError when any byte lies outside RAM
   */
  read(gpa: number, into: Uint8Array): void;
  /**
   * Copies `bytes` to `gpa`; the next save includes the pages.
   * @throws RangeError when any byte lies outside RAM
   */
  write(gpa: number, bytes: Uint8Array): void;
}

interface Slot extends MemorySlot {
  readonly pages: WrittenPages;
}

/** The RAM of a machine. */
export class GuestRam implements GuestMemory {
  readonly layout: readonly RamSlot[];
  readonly #slots: readonly Slot[];

  constructor(slots: readonly MemorySlot[]) {
    this.layout = slots;
    this.#slots = slots.map((slot) => ({ ...slot, pages: new WrittenPages(slot.written) }));
  }

  read(gpa: number, into: Uint8Array): void {
    const slot = this.#slotOf(gpa, into.length);
    readMemory(slot.memory, gpa - slot.gpa, into);
  }

  write(gpa: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const slot = this.#slotOf(gpa, bytes.length);
    const offset = gpa - slot.gpa;
    try {
      writeMemory(slot.memory, offset, bytes);
    } finally {
      // A write that fails may have written some of the bytes.
      const first = Math.floor(offset / PAGE_BYTES);
      slot.pages.add(first, Math.floor((offset + bytes.length - 1) / PAGE_BYTES) - first + 1);
    }
  }

  #slotOf(gpa: number, length: number): Slot {
    const slot = this.#slots.find((s) => gpa >= s.gpa && gpa + length <= s.gpa + s.sizeBytes);
    if (!slot) throw new RangeError(`guest memory has no ${length} bytes at 0x${gpa.toString(16)}`);
    return slot;
  }
}
