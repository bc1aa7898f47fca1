/**
 * The filter at the end of a segment: says of most fingerprints that are not in the segment that they are not, so that
 * a save looks at a few pages of it and not at all of them (docs/format.md, "Segments").
 *
 * A blocked Bloom filter (Putze, Sanders, Singler 2007): a fingerprint is three bits of one block of 64 bytes. A power of two
 * of blocks, 10 to 20 bits an entry, chosen by the fingerprint's highest bits, so that entries in their order fill the
 * blocks in theirs, and a filter is halved by joining neighbours. Fingerprints are hashes already.
 *
 * Invariant: like the entries it is a hint. A filter that is wrong hides chunks, which costs room and nothing else.
 */

const BLOCK_BYTES = 64;
const BLOCK_WORDS = BLOCK_BYTES / 4;
const BLOCK_BITS = BLOCK_BYTES * 8;
const LEAST_BITS_AN_ENTRY = 10;
/** Fewer entries take two pages: a filter would save nothing. */
const LEAST_ENTRIES = 512;

/** Blocks of the filter of a segment with so many entries; 0: it has none. */
export function filterBlocks(entries: number): number {
  if (entries < LEAST_ENTRIES) return 0;
  return 2 ** Math.ceil(Math.log2((entries * LEAST_BITS_AN_ENTRY) / BLOCK_BITS));
}

export const filterBytes = (entries: number): number => filterBlocks(entries) * BLOCK_BYTES;

/** A filter as its 32-bit words. */
export class SegmentFilter {
  readonly #shift: number;

  constructor(readonly words: Uint32Array) {
    this.#shift = shiftOf(words.length / BLOCK_WORDS);
  }

  /** False: no entry of the segment has this fingerprint. */
  mayHave(low: number, high: number): boolean {
    const block = (high >>> this.#shift) * BLOCK_WORDS;
    const { words } = this;
    return (
      ((words[block + ((low >>> 5) & 15)]! >>> (low & 31)) &
        (words[block + ((low >>> 14) & 15)]! >>> ((low >>> 9) & 31)) &
        (words[block + ((low >>> 23) & 15)]! >>> ((low >>> 18) & 31)) &
        1) !==
      0
    );
  }
}

/** `high >>> shift` is the block. */
const shiftOf = (blocks: number): number => 32 - Math.log2(blocks);

/** Makes the filter of a segment while its entries go by. */
export class FilterBuilder {
  readonly #words: Uint32Array;
  readonly #shift: number;

  constructor(mostEntries: number) {
    const blocks = filterBlocks(mostEntries);
    this.#words = new Uint32Array(blocks * BLOCK_WORDS);
    this.#shift = shiftOf(blocks);
  }

  /** `entries`: four words each, the first two the fingerprint. */
  add(entries: Uint32Array): void {
    const words = this.#words;
    if (words.length === 0) return;
    for (let at = 0; at < entries.length; at += 4) {
      const low = entries[at]!;
      const block = (entries[at + 1]! >>> this.#shift) * BLOCK_WORDS;
      words[block + ((low >>> 5) & 15)]! |= 1 << (low & 31);
      words[block + ((low >>> 14) & 15)]! |= 1 << ((low >>> 9) & 31);
      words[block + ((low >>> 23) & 15)]! |= 1 << ((low >>> 18) & 31);
    }
  }

  /** The filter of so many entries, no more than were foreseen; the builder is used up. */
  finish(entries: number): Uint8Array {
    const words = this.#words;
    const wanted = filterBlocks(entries);
    for (let blocks = words.length / BLOCK_WORDS; wanted > 0 && blocks > wanted; blocks /= 2)
      joinNeighbours(words, blocks);
    return new Uint8Array(words.buffer, 0, wanted * BLOCK_BYTES);
  }
}

/** Puts blocks 2i and 2i + 1 together as block i. */
function joinNeighbours(words: Uint32Array, blocks: number): void {
  for (let block = 0; block < blocks / 2; block++)
    for (let i = 0; i < BLOCK_WORDS; i++)
      words[block * BLOCK_WORDS + i] =
        words[2 * block * BLOCK_WORDS + i]! | words[(2 * block + 1) * BLOCK_WORDS + i]!;
}
