/**
 * A set in memory that several threads share: the pages of a slot that livesnap itself has written, which KVM's dirty log
 * lacks; the blocks of a disk that were written, or that its overlay has.
 *
 * Thread: the device thread adds and removes, the main thread reads and takes. Every access is atomic.
 */
import { type BitSet, maskOf } from '../../bit-set.js';

const WORD_BITS = 32;

export class SharedBits {
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
  }

  /** Memory for members below `size`, none of them set. */
  static allocate(size: number): SharedArrayBuffer {
    return new SharedArrayBuffer(Math.ceil(size / WORD_BITS) * 4);
  }

  has(member: number): boolean {
    return (Atomics.load(this.#words, member >>> 5) & (1 << (member & 31))) !== 0;
  }

  get isEmpty(): boolean {
    return this.#words.every((_, i) => Atomics.load(this.#words, i) === 0);
  }

  addRange(first: number, count: number): void {
    this.#forWords(first, count, (i, mask) => Atomics.or(this.#words, i, mask));
  }

  removeRange(first: number, count: number): void {
    this.#forWords(first, count, (i, mask) => Atomics.and(this.#words, i, ~mask));
  }

  /** Adds all members to `into`. */
  copyTo(into: BitSet): void {
    for (let i = 0; i < this.#words.length; i++) into.addWord(i, Atomics.load(this.#words, i));
  }

  /** Moves all members into `into`. One that is added meanwhile is moved now or by the next call. */
  moveTo(into: BitSet): void {
    for (let i = 0; i < this.#words.length; i++) {
      // Most words are 0, and reading a word is cheaper than exchanging it.
      if (Atomics.load(this.#words, i) !== 0) into.addWord(i, Atomics.exchange(this.#words, i, 0));
    }
  }

  #forWords(first: number, count: number, change: (word: number, mask: number) => void): void {
    const end = first + count;
    for (let member = first; member < end; ) {
      const bit = member % WORD_BITS;
      const bits = Math.min(WORD_BITS - bit, end - member);
      change((member - bit) / WORD_BITS, maskOf(bit, bits));
      member += bits;
    }
  }
}
