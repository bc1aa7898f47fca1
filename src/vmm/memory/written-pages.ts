/**
 * The pages of a slot that livesnap itself wrote since they were last taken. KVM's dirty log lacks them: it sees the
 * guest's writes only.
 *
 * Thread: the device thread adds, the main thread takes. The bits are shared, and every access is atomic.
 */
import { type BitSet, maskOf } from '../../bit-set.js';
import { PAGE_BYTES } from '../../page-stream.js';

const WORD_BITS = 32;

export class WrittenPages {
  readonly #words: Int32Array;

  constructor(shared: SharedArrayBuffer) {
    this.#words = new Int32Array(shared);
  }

  /** The shared bits for a slot of `sizeBytes`: none is set. */
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

  /** Moves all pages into `into`. A page that is added meanwhile is moved now or stays for the next time. */
  moveTo(into: BitSet): void {
    for (let i = 0; i < this.#words.length; i++) {
      // Most words are empty: reading one is cheaper than exchanging it.
      if (Atomics.load(this.#words, i) !== 0) into.addWord(i, Atomics.exchange(this.#words, i, 0));
    }
  }
}
