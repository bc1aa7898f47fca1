/**
 * Guest RAM by guest-physical address, for the boot loader and for devices.
 *
 * Thread: any. Each thread makes a {@link GuestRam} of its own over the same slots.
 *
 * Invariants:
 * - An access lies within one slot, so it never crosses the hole below 4 GiB. The bounds are checked here.
 * - A page is marked as written after its bytes are in place, so that a save that finds the mark reads the bytes.
 */
import {
  discardPages,
  fillRandom,
  load16,
  type MemoryHandle,
  readMemory,
  store16,
  writeMemory,
} from '../../native/memory.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { RamSlot } from '../boot/memory-layout.js';
import type { MemorySlot } from '../kvm/vm.js';
import { SharedBits } from './shared-bits.js';

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

/** Guest RAM for devices that transfer data and share rings with a driver. */
export interface DmaMemory extends GuestMemory {
  /** Whether all of `length` bytes from `gpa` on lie in one range of RAM. */
  contains(gpa: number, length: number): boolean;
  /**
   * The 16 bits at `gpa`, read at once and before all later accesses.
   * @throws RangeError when they lie outside RAM or `gpa` is odd
   */
  load16(gpa: number): number;
  /**
   * Writes 16 bits at once: after all earlier accesses, and before all later ones (a full fence).
   * @throws RangeError when they lie outside RAM or `gpa` is odd
   */
  store16(gpa: number, value: number): void;
  /**
   * Writes random bytes of the host, at most 64 KiB.
   * @throws RangeError when any byte lies outside RAM
   */
  fillRandom(gpa: number, length: number): void;
  /**
   * Gives the whole pages of a range back to the host: they are zero afterwards, and the next save includes them. Parts of
   * pages stay. Nothing happens while a restore still fills the memory.
   * @throws RangeError when any byte lies outside RAM
   */
  discard(gpa: number, length: number): void;
  /**
   * Where a range is in a memory, for native code that transfers data. After a transfer into it call
   * {@link markWritten}, also if the transfer failed.
   * @throws RangeError when any byte lies outside RAM
   */
  locate(gpa: number, length: number): { readonly memory: MemoryHandle; readonly offset: number };
  /**
   * The next save includes the pages of the range, which native code wrote.
   * @throws RangeError when any byte lies outside RAM
   */
  markWritten(gpa: number, length: number): void;
}

interface Slot extends MemorySlot {
  readonly pages: SharedBits;
}

/** The RAM of a machine. */
export class GuestRam implements DmaMemory {
  readonly layout: readonly RamSlot[];
  readonly #slots: readonly Slot[];

  constructor(slots: readonly MemorySlot[]) {
    this.layout = slots;
    this.#slots = slots.map((slot) => ({ ...slot, pages: new SharedBits(slot.written) }));
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
      mark(slot, offset, bytes.length);
    }
  }

  contains(gpa: number, length: number): boolean {
    return this.#find(gpa, length) !== undefined;
  }

  load16(gpa: number): number {
    const slot = this.#slotOf(even(gpa), 2);
    return load16(slot.memory, gpa - slot.gpa);
  }

  store16(gpa: number, value: number): void {
    const slot = this.#slotOf(even(gpa), 2);
    const offset = gpa - slot.gpa;
    store16(slot.memory, offset, value);
    mark(slot, offset, 2);
  }

  fillRandom(gpa: number, length: number): void {
    if (length === 0) return;
    const slot = this.#slotOf(gpa, length);
    const offset = gpa - slot.gpa;
    try {
      fillRandom(slot.memory, offset, length);
    } finally {
      mark(slot, offset, length);
    }
  }

  discard(gpa: number, length: number): void {
    const slot = this.#slotOf(gpa, length);
    const first = Math.ceil((gpa - slot.gpa) / PAGE_BYTES) * PAGE_BYTES;
    const end = Math.floor((gpa - slot.gpa + length) / PAGE_BYTES) * PAGE_BYTES;
    if (end > first && discardPages(slot.memory, first, end - first)) mark(slot, first, end - first);
  }

  locate(gpa: number, length: number): { readonly memory: MemoryHandle; readonly offset: number } {
    const slot = this.#slotOf(gpa, length);
    return { memory: slot.memory, offset: gpa - slot.gpa };
  }

  markWritten(gpa: number, length: number): void {
    if (length === 0) return;
    const slot = this.#slotOf(gpa, length);
    mark(slot, gpa - slot.gpa, length);
  }

  #find(gpa: number, length: number): Slot | undefined {
    return this.#slots.find((s) => gpa >= s.gpa && gpa + length <= s.gpa + s.sizeBytes);
  }

  #slotOf(gpa: number, length: number): Slot {
    const slot = this.#find(gpa, length);
    if (!slot) throw new RangeError(`guest memory has no ${length} bytes at 0x${gpa.toString(16)}`);
    return slot;
  }
}

function mark({ pages }: Slot, offset: number, length: number): void {
  const first = Math.floor(offset / PAGE_BYTES);
  pages.addRange(first, Math.floor((offset + length - 1) / PAGE_BYTES) - first + 1);
}

function even(gpa: number): number {
  if (gpa % 2 !== 0) throw new RangeError(`0x${gpa.toString(16)} is odd`);
  return gpa;
}
