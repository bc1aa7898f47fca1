/**
 * A set of pages, one bit each, as KVM's dirty log has them (little-endian 32-bit words here).
 */

const WORD_BITS = 32;

export class PageBitmap {
  readonly words: Uint32Array;
  readonly pages: number;

  constructor(pages: number) {
    this.pages = pages;
    // Whole 64-bit words, as KVM writes them.
    this.words = new Uint32Array(Math.ceil(pages / 64) * 2);
  }

  /** The same memory as bytes, for the kernel to fill. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.words.buffer);
  }

  addRange(first: number, count: number): void {
    const end = Math.min(first + count, this.pages);
    for (let page = first; page < end; ) {
      const word = Math.floor(page / WORD_BITS);
      if (page % WORD_BITS === 0 && page + WORD_BITS <= end) {
        this.words[word] = 0xffffffff;
        page += WORD_BITS;
      } else {
        this.words[word]! |= 1 << (page % WORD_BITS);
        page++;
      }
    }
  }

  addAll(other: PageBitmap): void {
    for (let i = 0; i < this.words.length; i++) this.words[i]! |= other.words[i]!;
  }

  clear(): void {
    this.words.fill(0);
  }

  count(): number {
    let count = 0;
    for (let word of this.words) {
      for (; word !== 0; count++) word &= word - 1;
    }
    return count;
  }

  /** Moves up to `max` pages, the lowest at or after `from`, out of the set into `into`; says how many. */
  take(from: number, into: Uint32Array, max: number): number {
    let taken = 0;
    for (let i = Math.floor(from / WORD_BITS); i < this.words.length && taken < max; i++) {
      let word = this.words[i]!;
      while (word !== 0 && taken < max) {
        const lowest = word & -word;
        into[taken++] = i * WORD_BITS + (31 - Math.clz32(lowest));
        word ^= lowest;
      }
      this.words[i] = word;
    }
    return taken;
  }
}
