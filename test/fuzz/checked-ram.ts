/**
 * Guest RAM that catches what a device must not do: an access that is neither in RAM nor refused, and an operation that
 * does not end.
 */
import assert from 'node:assert/strict';
import type { DmaMemory } from '../../src/vmm/memory/guest-memory.js';

/** More accesses than any one operation of a device makes. */
const MAX_ACCESSES = 500_000;

export class CheckedRam implements DmaMemory {
  readonly #ram: DmaMemory;
  #accesses = 0;

  constructor(ram: DmaMemory) {
    this.#ram = ram;
  }

  get layout() {
    return this.#ram.layout;
  }

  /** Begins an operation. */
  begin(): void {
    this.#accesses = 0;
  }

  read(gpa: number, into: Uint8Array): void {
    this.#access(gpa, into.length, () => this.#ram.read(gpa, into));
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.#access(gpa, bytes.length, () => this.#ram.write(gpa, bytes));
  }

  load16(gpa: number): number {
    return this.#access(gpa, 2, () => this.#ram.load16(gpa));
  }

  store16(gpa: number, value: number): void {
    this.#access(gpa, 2, () => this.#ram.store16(gpa, value));
  }

  fillRandom(gpa: number, length: number): void {
    this.#access(gpa, length, () => this.#ram.fillRandom(gpa, length));
  }

  discard(gpa: number, length: number): void {
    this.#access(gpa, length, () => this.#ram.discard(gpa, length));
  }

  locate(gpa: number, length: number): ReturnType<DmaMemory['locate']> {
    return this.#access(gpa, length, () => this.#ram.locate(gpa, length));
  }

  markWritten(gpa: number, length: number): void {
    this.#access(gpa, length, () => this.#ram.markWritten(gpa, length));
  }

  contains(gpa: number, length: number): boolean {
    const isIn = this.#ram.contains(gpa, length);
    assert.equal(isIn, this.#holds(gpa, length), `contains(${gpa}, ${length})`);
    return isIn;
  }

  /** An access outside RAM must throw a RangeError, and one inside must succeed. */
  #access<T>(gpa: number, length: number, access: () => T): T {
    this.#accesses++;
    assert(this.#accesses <= MAX_ACCESSES, 'an operation does not end');
    assert(Number.isInteger(gpa) && gpa >= 0, `an access at ${gpa}`);
    const isAllowed = length === 0 || this.#holds(gpa, length);
    try {
      const result = access();
      assert(isAllowed, `${length} bytes at ${gpa} are not RAM, and were accessed`);
      return result;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      assert(!isAllowed || gpa % 2 === 1, error.message);
      throw error;
    }
  }

  #holds(gpa: number, length: number): boolean {
    return this.layout.some((slot) => gpa >= slot.gpa && gpa + length <= slot.gpa + slot.sizeBytes);
  }
}
