/**
 * The pages of a slot that livesnap itself has written. KVM's dirty log lacks them, because it has the guest's writes
 * only.
 *
 * Thread: the device thread adds pages, the main thread takes them. The bits are shared, and every access is atomic.
 */
import { type BitSet, maskOf } from '../../bit-set.js';
import { PAGE_BYTES } from '../../page-stream.js';

const WORD_BITS = 32;

export class WrittenPages {
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
  }

  /** Shared bits for a slot of `sizeBytes`, all clear. */
  static allocate(sizeBytes: number): SharedArrayBuffer {
    return new SharedArrayBuffer(Math.ceil(sizeBytes / PAGE_BYTES / WORD_BITS) * 4);
  }

  add(first: number, count: number): void {
    const end = first + count;
    for (let page = first; page < end; ) {
      const bit = page % WORD_BITS;
      const bits = Math.min(WORD_BITS - bit, end - page);
      Atomics.or(this.#words, (page - bit) / WORD_BITS, maskOf(bit, bits));
      page += bits;
    }
  }

  /** Moves all pages into `into`. A page that is added meanwhile is moved now or by the next call. */
  moveTo(into: BitSet): void {
    for (let i = 0; i < this.#words.length; i++) {
      // Most words are 0, and reading a word is cheaper than exchanging it.
      if (Atomics.load(this.#words, i) !== 0) into.addWord(i, Atomics.exchange(this.#words, i, 0));
    }
  }
}
