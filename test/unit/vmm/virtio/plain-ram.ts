/** Guest RAM that no machine uses: for devices under test. */
import {
  closeMemory,
  createMemory,
  dataRanges,
  readMemory,
  writeMemory,
} from '../../../../src/native/memory.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import type { MemorySlot } from '../../../../src/vmm/kvm/vm.js';
import { GuestRam } from '../../../../src/vmm/memory/guest-memory.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

export class PlainRam {
  readonly slots: readonly MemorySlot[];
  readonly ram: GuestRam;

  /** @param sizes the slots by address and size in bytes */
  constructor(sizes: readonly { readonly gpa: number; readonly sizeBytes: number }[]) {
    this.slots = sizes.map((slot) => ({
      ...slot,
      memory: createMemory(slot.sizeBytes),
      written: SharedBits.allocate(slot.sizeBytes / PAGE_BYTES),
    }));
    this.ram = new GuestRam(this.slots);
  }

  /** RAM with the same bytes. */
  copy(): PlainRam {
    const copy = new PlainRam(this.slots.map(({ gpa, sizeBytes }) => ({ gpa, sizeBytes })));
    this.slots.forEach(({ memory }, i) => {
      for (const { offset, length } of dataRanges(memory)) {
        const bytes = new Uint8Array(length);
        readMemory(memory, offset, bytes);
        writeMemory(copy.slots[i]!.memory, offset, bytes);
      }
    });
    return copy;
  }

  bytes(gpa: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.ram.read(gpa, bytes);
    return bytes;
  }

  close(): void {
    for (const { memory } of this.slots) closeMemory(memory);
  }
}
