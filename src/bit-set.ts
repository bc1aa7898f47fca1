/**
 * A set of small integers, one bit each: pages of a slot, chunks of a pack.
 *
 * Invariants:
 * - No member is `size` or more.
 * - As bytes, bit n of byte m is the member 8m + n, as in KVM's dirty log and in the store's files.
 * - The number of bytes is a multiple of 8.
 */

const WORD_BITS = 32;

export class BitSet implements Iterable<number> {
  readonly size: number;
  readonly #words: Uint32Array;

  constructor(size: number) {
    this.size = size;
    // Whole 64-bit words, as KVM writes them.
    this.#words = new Uint32Array(Math.ceil(size / 64) * 2);
  }

  /** A copy of what `bytes` holds. */
  static from(bytes: Uint8Array): BitSet {
    const set = new BitSet(bytes.length * 8);
    set.bytes.set(bytes);
    return set;
  }

  /** The same memory as bytes, for the kernel to fill. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer);
  }

  has(member: number): boolean {
    return member < this.size && (this.#words[member >>> 5]! & (1 << (member & 31))) !== 0;
  }

  add(member: number): void {
    if (member < this.size) this.#words[member >>> 5]! |= 1 << (member & 31);
  }

  /** Adds `count` members from `first` on, as far as the set goes. */
  addRange(first: number, count: number): void {
    const end = Math.min(first + count, this.size);
    for (let member = first; member < end; ) {
      const bit = member % WORD_BITS;
      const bits = Math.min(WORD_BITS - bit, end - member);
      this.addWord((member - bit) / WORD_BITS, maskOf(bit, bits));
      member += bits;
    }
  }

  remove(member: number): void {
    if (member < this.size) this.#words[member >>> 5]! &= ~(1 << (member & 31));
  }

  removeRange(first: number, count: number): void {
    for (let member = first; member < first + count; member++) this.remove(member);
  }

  /** Adds the members of one word: bit n of word i is the member 32i + n. */
  addWord(i: number, bits: number): void {
    // Memory that was never written to takes no room: the sets of a large disk are mostly that.
    if (bits !== 0) this.#words[i]! |= bits;
  }

  addAll(other: BitSet): void {
    for (let i = 0; i < this.#words.length; i++) this.addWord(i, other.#words[i]!);
  }

  clear(): void {
    this.#words.fill(0);
  }

  count(): number {
    let count = 0;
    // A loop over the indices takes a fifth of the time of one over the words (V8 of Node 20).
    for (let i = 0; i < this.#words.length; i++) {
      const word = this.#words[i]!;
      if (word !== 0) count += bitsOf(word);
    }
    return count;
  }

  get isEmpty(): boolean {
    return this.#words.every((word) => word === 0);
  }

  /** The members, ascending. */
  *[Symbol.iterator](): Generator<number> {
    for (let i = 0; i < this.#words.length; i++)
      for (let word = this.#words[i]!; word !== 0; word &= word - 1)
        yield i * WORD_BITS + 31 - Math.clz32(word & -word);
  }

  /** Moves up to `max` members, the lowest at or after `from`, into `into`; returns how many. */
  take(from: number, into: Uint32Array, max: number): number {
    let taken = 0;
    for (let i = Math.floor(from / WORD_BITS); i < this.#words.length && taken < max; i++) {
      let word = this.#words[i]!;
      while (word !== 0 && taken < max) {
        const lowest = word & -word;
        into[taken++] = i * WORD_BITS + (31 - Math.clz32(lowest));
        word ^= lowest;
      }
      this.#words[i] = word;
    }
    return taken;
  }
}

/** A word with `bits` bits set, from bit `bit` up. */
export const maskOf = (bit: number, bits: number): number =>
  bits === WORD_BITS ? -1 : ((1 << bits) - 1) << bit;

/** How many bits of a 32-bit word are set: sums of 2, 4, 8 and 32 bits (Hacker's Delight, section 5-1). */
function bitsOf(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
