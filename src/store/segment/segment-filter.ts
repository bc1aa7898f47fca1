/**
 * The filter of a segment: it rules out most fingerprints that the segment does not contain, so a save reads few of the
 * segment's pages (docs/format.md, "Segments").
 *
 * It is a blocked Bloom filter (Putze, Sanders, Singler 2007). A fingerprint sets three bits of one block of 64 bytes.
 * The number of blocks is a power of two, with 10 to 20 bits an entry, and the fingerprint's highest bits choose the
 * block. So entries in ascending order fill the blocks in order, and joining neighbours halves a filter.
 *
 * Invariant: a filter is a hint, as the entries are. A wrong filter hides chunks, which costs space and nothing else.
 */
import assert from 'node:assert/strict';

const BLOCK_BYTES = 64;
const BLOCK_WORDS = BLOCK_BYTES / 4;
const BLOCK_BITS = BLOCK_BYTES * 8;
const MIN_BITS_PER_ENTRY = 10;
/** A segment with fewer entries takes two pages, so a filter would save no reads. */
const MIN_ENTRIES = 512;

/** How many blocks the filter of a segment with this many entries has; 0 if there is no filter. */
export function filterBlocks(entries: number): number {
  if (entries < MIN_ENTRIES) return 0;
  return 2 ** Math.ceil(Math.log2((entries * MIN_BITS_PER_ENTRY) / BLOCK_BITS));
}

export const filterBytes = (entries: number): number => filterBlocks(entries) * BLOCK_BYTES;

export class SegmentFilter {
  readonly #shift: number;

  /** `words`: the filter as stored. */
  constructor(readonly words: Uint32Array) {
    this.#shift = shiftOf(words.length / BLOCK_WORDS);
  }

  /** False only if no entry of the segment has this fingerprint. */
  mayContain(low: number, high: number): boolean {
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

/** `high >>> shift` is a fingerprint's block. */
const shiftOf = (blocks: number): number => 32 - Math.log2(blocks);

/** Builds the filter of a segment from its entries, part by part. */
export class FilterBuilder {
  readonly #words: Uint32Array;
  readonly #shift: number;

  constructor(maxEntries: number) {
    const blocks = filterBlocks(maxEntries);
    this.#words = new Uint32Array(blocks * BLOCK_WORDS);
    this.#shift = shiftOf(blocks);
  }

  /** `entries`: four words each, of which the first two are the fingerprint. */
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

  /** The filter, as stored, of the `entries` that were added. The builder cannot be used again. */
  finish(entries: number): Uint8Array {
    const words = this.#words;
    const wanted = filterBlocks(entries);
    assert(wanted * BLOCK_WORDS <= words.length, 'a filter gets no more entries than were announced');
    for (let blocks = words.length / BLOCK_WORDS; wanted > 0 && blocks > wanted; blocks /= 2)
      joinNeighbours(words, blocks);
    return new Uint8Array(words.buffer, 0, wanted * BLOCK_BYTES);
  }
}

/** Joins blocks 2i and 2i + 1 as block i. */
function joinNeighbours(words: Uint32Array, blocks: number): void {
  for (let block = 0; block < blocks / 2; block++)
    for (let i = 0; i < BLOCK_WORDS; i++)
      words[block * BLOCK_WORDS + i] =
        words[2 * block * BLOCK_WORDS + i]! | words[(2 * block + 1) * BLOCK_WORDS + i]!;
}
