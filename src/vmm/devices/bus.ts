/**
 * Routes accesses to devices by address. A machine has one bus for port I/O and one for MMIO.
 *
 * Invariants:
 * - Ranges do not overlap.
 * - An access never throws and allocates nothing.
 * - An address without a device reads as all ones and ignores writes.
 * - An access that is wider than a device, or crosses the end of a range, is split into bytes, low to high, as an ISA
 *   bridge does.
 */
import assert from 'node:assert/strict';
import type { AccessSize, Device } from './device.js';

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const;
const NOT_FOUND = -1;

interface Attachment {
  readonly first: number;
  /** First address after the range. */
  readonly end: number;
  /** The address of the device's offset 0. */
  readonly base: number;
  readonly device: Device;
}

export class Bus {
  /** Ascending by address. */
  readonly #attachments: Attachment[] = [];
  /** Index of the attachment found last: the next access is often for the same device. */
  #last = NOT_FOUND;

  /** Puts a device's offset 0 at `base`. */
  attach(base: number, device: Device): void {
    for (const { offset, length } of device.ranges) {
      const first = base + offset;
      const end = first + length;
      for (const other of this.#attachments) {
        assert(end <= other.first || first >= other.end, `two devices at address ${first}`);
      }
      this.#attachments.push({ first, end, base, device });
    }
    this.#attachments.sort((a, b) => a.first - b.first);
    this.#last = NOT_FOUND;
  }

  /** The unsigned value. */
  read(address: number, size: AccessSize): number {
    const index = this.#find(address);
    if (index !== NOT_FOUND) {
      const { end, base, device } = this.#attachments[index]!;
      if (size <= device.widthBytes && address + size <= end) return device.read(address - base, size) >>> 0;
    } else if (size === 1) {
      return ALL_ONES[1];
    }
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#readByte(address + i) << (8 * i);
    return value >>> 0;
  }

  /** @param value unsigned; bits beyond `size` are ignored */
  write(address: number, size: AccessSize, value: number): void {
    const index = this.#find(address);
    if (index !== NOT_FOUND) {
      const { end, base, device } = this.#attachments[index]!;
      if (size <= device.widthBytes && address + size <= end) {
        device.write(address - base, size, (value & ALL_ONES[size]) >>> 0);
        return;
      }
    } else if (size === 1) {
      return;
    }
    for (let i = 0; i < size; i++) this.#writeByte(address + i, (value >>> (8 * i)) & 0xff);
  }

  /**
   * Reads `count` items of `size` bytes from one address into `data[at]` and on. A string instruction makes several
   * items. An item of another size than an access (MMIO has up to 8 bytes) is read in pieces, upwards.
   */
  readItems(address: number, size: number, count: number, data: Uint8Array, at: number): void {
    if (size === 1) {
      const index = this.#find(address);
      if (index !== NOT_FOUND) {
        const { base, device } = this.#attachments[index]!;
        if (device.widthBytes === 1 && device.readBytes) {
          device.readBytes(address - base, data, at, count);
          return;
        }
      }
    }
    for (let i = 0, to = at; i < count; i++) {
      for (let done = 0; done < size; ) {
        const piece = pieceSize(size - done);
        const value = this.read(address + done, piece);
        for (let byte = 0; byte < piece; byte++) data[to++] = (value >>> (8 * byte)) & 0xff;
        done += piece;
      }
    }
  }

  /** Writes `count` items of `size` bytes from `data[at]` on to one address; see {@link readItems}. */
  writeItems(address: number, size: number, count: number, data: Uint8Array, at: number): void {
    if (size === 1) {
      const index = this.#find(address);
      if (index !== NOT_FOUND) {
        const { base, device } = this.#attachments[index]!;
        if (device.widthBytes === 1 && device.writeBytes) {
          device.writeBytes(address - base, data, at, count);
          return;
        }
      }
    }
    for (let i = 0, from = at; i < count; i++) {
      for (let done = 0; done < size; ) {
        const piece = pieceSize(size - done);
        let value = 0;
        for (let byte = 0; byte < piece; byte++) value |= data[from++]! << (8 * byte);
        this.write(address + done, piece, value >>> 0);
        done += piece;
      }
    }
  }

  #readByte(address: number): number {
    const index = this.#find(address);
    if (index === NOT_FOUND) return ALL_ONES[1];
    const { base, device } = this.#attachments[index]!;
    return device.read(address - base, 1) & 0xff;
  }

  #writeByte(address: number, value: number): void {
    const index = this.#find(address);
    if (index === NOT_FOUND) return;
    const { base, device } = this.#attachments[index]!;
    device.write(address - base, 1, value);
  }

  #find(address: number): number {
    const attachments = this.#attachments;
    if (this.#last !== NOT_FOUND) {
      const last = attachments[this.#last]!;
      if (address >= last.first && address < last.end) return this.#last;
    }
    let low = 0;
    let high = attachments.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const { first, end } = attachments[middle]!;
      if (address < first) high = middle - 1;
      else if (address >= end) low = middle + 1;
      else {
        this.#last = middle;
        return middle;
      }
    }
    return NOT_FOUND;
  }
}

/** The widest access of at most `bytes` bytes. */
const pieceSize = (bytes: number): AccessSize => (bytes >= 4 ? 4 : bytes >= 2 ? 2 : 1);
