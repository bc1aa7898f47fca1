/**
 * Reads descriptor chains: virtio 1.2, sections 2.7.5 and 2.7.5.3.
 *
 * Invariants:
 * - Each descriptor is copied once and then checked, because the guest may change it at any time.
 * - A chain has at most {@link MAX_DESCRIPTORS} descriptors and 2^32 − 1 bytes, so a loop ends.
 * - Every range that is returned lies in RAM.
 */
import type { DmaMemory } from '../memory/guest-memory.js';

/** A range of guest-physical addresses that lies within one slot of RAM; never empty. */
export interface GuestRange {
  readonly gpa: number;
  readonly length: number;
}

/** A buffer that the driver offered. */
export interface Chain {
  /** The index of its first descriptor: its name in the used ring. */
  readonly head: number;
  readonly readable: readonly GuestRange[];
  readonly writable: readonly GuestRange[];
}

export interface ChainLimits {
  /** Size of the queue. */
  readonly size: number;
  /** Whether VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
}

/** The driver broke the protocol. The message completes "the guest's driver …". */
export class Violation extends Error {}

/** The most descriptors of a chain, those of its indirect table included. */
export const MAX_DESCRIPTORS = 1024;
const MAX_CHAIN_BYTES = 0xffff_ffff;
const DESCRIPTOR_BYTES = 16;
const Flag = { next: 1, write: 2, indirect: 4 } as const;

/** @throws Violation, or RangeError for a table outside RAM */
export function readChain(
  memory: DmaMemory,
  table: number,
  head: number,
  { size, indirect }: ChainLimits,
): Chain {
  const collected = new Collected(memory, head);
  const bytes = Buffer.alloc(DESCRIPTOR_BYTES);
  let index = head;
  for (let count = 0; ; count++) {
    if (count === size) throw new Violation(`linked more than ${size} descriptors`);
    memory.read(table + index * DESCRIPTOR_BYTES, bytes);
    const flags = bytes.readUInt16LE(12);
    if (flags & Flag.indirect) {
      if (!indirect) throw new Violation('used an indirect descriptor without having negotiated it');
      if (flags & Flag.next) throw new Violation('set both INDIRECT and NEXT in a descriptor');
      collected.addTable(bytes.readBigUInt64LE(0), bytes.readUInt32LE(8));
      return collected.chain;
    }
    collected.add(bytes, 0);
    if (!(flags & Flag.next)) return collected.chain;
    index = bytes.readUInt16LE(14);
    if (index >= size) throw new Violation(`linked descriptor ${index} of ${size}`);
  }
}

class Collected {
  readonly #memory: DmaMemory;
  readonly #head: number;
  readonly #readable: GuestRange[] = [];
  readonly #writable: GuestRange[] = [];
  #totalBytes = 0;

  constructor(memory: DmaMemory, head: number) {
    this.#memory = memory;
    this.#head = head;
  }

  get chain(): Chain {
    return { head: this.#head, readable: this.#readable, writable: this.#writable };
  }

  /** The buffer of the descriptor at `bytes[at]`. */
  add(bytes: Buffer, at: number): void {
    const address = bytes.readBigUInt64LE(at);
    const length = bytes.readUInt32LE(at + 8);
    const gpa = Number(address);
    if (length === 0) throw new Violation('offered an empty buffer');
    if (!this.#memory.contains(gpa, length))
      throw new Violation(`offered ${length} bytes at 0x${address.toString(16)}, which is not RAM`);
    this.#totalBytes += length;
    if (this.#totalBytes > MAX_CHAIN_BYTES) throw new Violation('offered a chain of 4 GiB or more');
    if (bytes.readUInt16LE(at + 12) & Flag.write) {
      this.#writable.push({ gpa, length });
    } else {
      if (this.#writable.length > 0) throw new Violation('put a readable buffer after a writable one');
      this.#readable.push({ gpa, length });
    }
  }

  /** The buffers of an indirect table, which is copied whole. */
  addTable(address: bigint, length: number): void {
    const count = length / DESCRIPTOR_BYTES;
    if (!Number.isInteger(count) || count === 0 || count > MAX_DESCRIPTORS)
      throw new Violation(`gave an indirect table of ${length} bytes`);
    if (!this.#memory.contains(Number(address), length))
      throw new Violation(`put an indirect table at 0x${address.toString(16)}, which is not RAM`);
    const table = Buffer.alloc(length);
    this.#memory.read(Number(address), table);
    let index = 0;
    for (let visited = 0; ; visited++) {
      if (visited === count) throw new Violation('linked the descriptors of an indirect table to a loop');
      const at = index * DESCRIPTOR_BYTES;
      const flags = table.readUInt16LE(at + 12);
      if (flags & Flag.indirect) throw new Violation('put an indirect descriptor into an indirect table');
      this.add(table, at);
      if (!(flags & Flag.next)) return;
      index = table.readUInt16LE(at + 14);
      if (index >= count) throw new Violation(`linked descriptor ${index} of an indirect table of ${count}`);
    }
  }
}
