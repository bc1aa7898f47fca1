/**
 * Finds the places of the chunks with a fingerprint: in segments, which are sorted files, and in a table of the chunks
 * that a save has written so far (docs/format.md, "Segments").
 *
 * Invariant: a place that is found is a hint. Chunks with equal fingerprints may differ, and gc may have removed the
 * pack, so the caller compares bytes.
 */
import { randomFillSync } from 'node:crypto';
import type { SegmentFilter } from './segment-filter.js';
import { ENTRY_WORDS } from './sorted-entries.js';

/** Places tried per fingerprint. It bounds what forged collisions cost: pages beyond them are stored again. */
export const MAX_CANDIDATES = 8;

/** A sorted segment in memory, as words: fingerprint low, fingerprint high, pack, chunk. */
export class Segment {
  readonly count: number;

  /** `filter`: null for a segment without one. */
  constructor(
    readonly words: Uint32Array,
    readonly filter: SegmentFilter | null = null,
  ) {
    this.count = Math.floor(words.length / ENTRY_WORDS);
  }

  /** Index of the first entry whose fingerprint is not below the one given. */
  lowerBound(low: number, high: number): number {
    const words = this.words;
    let from = 0;
    let to = this.count;
    // Fingerprints are spread evenly, so interpolate until the range is small. Then halve it.
    for (let tries = 0; tries < 4 && to - from > 32; tries++) {
      const first = words[from * ENTRY_WORDS + 1]!;
      const last = words[(to - 1) * ENTRY_WORDS + 1]!;
      if (high <= first || high > last) break;
      const slack = 16;
      const guess = from + Math.floor(((to - 1 - from) * (high - first)) / (last - first));
      const below = Math.max(from, guess - slack);
      const above = Math.min(to - 1, guess + slack);
      if (words[below * ENTRY_WORDS + 1]! < high) from = below;
      else if (words[below * ENTRY_WORDS + 1]! > high) to = below + 1;
      if (above < to && words[above * ENTRY_WORDS + 1]! > high) to = above + 1;
    }
    while (from < to) {
      const middle = (from + to) >>> 1;
      const h = words[middle * ENTRY_WORDS + 1]!;
      if (h < high || (h === high && words[middle * ENTRY_WORDS]! < low)) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /**
   * Appends the places of a fingerprint to `places` (pairs of pack and chunk), which has `found` of them, up to
   * {@link MAX_CANDIDATES}. Returns the new count.
   */
  find(low: number, high: number, places: Uint32Array, found: number): number {
    const { words, filter } = this;
    if (filter && !filter.mayContain(low, high)) return found;
    for (let i = this.lowerBound(low, high); i < this.count && found < MAX_CANDIDATES; i++) {
      const at = i * ENTRY_WORDS;
      if (words[at] !== low || words[at + 1] !== high) break;
      places[found * 2] = words[at + 2]!;
      places[found * 2 + 1] = words[at + 3]!;
      found++;
    }
    return found;
  }
}

const BYTE_VALUES = 256;
const FINGERPRINT_BYTES = 8;
const INITIAL_SLOTS = 4096;

/**
 * The chunks that a save has written so far: a hash table from fingerprint to place, with open addressing.
 *
 * A guest can choose pages with any fingerprints, because XXH64 has no secret. So each table hashes them with random
 * words of its own (simple tabulation hashing), and a search takes a few probes whatever the fingerprints are
 * (Patrascu and Thorup 2012, "The Power of Simple Tabulation Hashing").
 */
export class FingerprintTable {
  readonly #random = randomFillSync(new Uint32Array(BYTE_VALUES * FINGERPRINT_BYTES));
  /** Four words a slot, as in {@link Segment}. A free slot has pack 0, which is the number of no pack. */
  #slots = new Uint32Array(INITIAL_SLOTS * ENTRY_WORDS);
  /** Slots - 1; their number is a power of two. */
  #mask = INITIAL_SLOTS - 1;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** As {@link Segment.find}. */
  find(low: number, high: number, places: Uint32Array, found: number): number {
    const slots = this.#slots;
    for (let slot = this.#home(low, high); found < MAX_CANDIDATES; slot = (slot + 1) & this.#mask) {
      const at = slot * ENTRY_WORDS;
      if (slots[at + 2] === 0) break;
      if (slots[at] !== low || slots[at + 1] !== high) continue;
      places[found * 2] = slots[at + 2]!;
      places[found * 2 + 1] = slots[at + 3]!;
      found++;
    }
    return found;
  }

  /** The caller adds no fingerprint that has {@link MAX_CANDIDATES} places already: searches would become slow. */
  add(low: number, high: number, pack: number, chunk: number): void {
    if ((this.#count + 1) * 2 > this.#mask) this.#grow();
    this.#insert(low, high, pack, chunk);
    this.#count++;
  }

  /** Removes all entries and keeps the capacity. */
  clear(): void {
    if (this.#count > 0) this.#slots.fill(0);
    this.#count = 0;
  }

  /** How many slots a search for a fingerprint reads. */
  probes(low: number, high: number): number {
    let slot = this.#home(low, high);
    let count = 1;
    for (; this.#slots[slot * ENTRY_WORDS + 2] !== 0; slot = (slot + 1) & this.#mask) count++;
    return count;
  }

  #home(low: number, high: number): number {
    const random = this.#random;
    return (
      (random[low & 255]! ^
        random[256 + ((low >>> 8) & 255)]! ^
        random[512 + ((low >>> 16) & 255)]! ^
        random[768 + (low >>> 24)]! ^
        random[1024 + (high & 255)]! ^
        random[1280 + ((high >>> 8) & 255)]! ^
        random[1536 + ((high >>> 16) & 255)]! ^
        random[1792 + (high >>> 24)]!) &
      this.#mask
    );
  }

  #insert(low: number, high: number, pack: number, chunk: number): void {
    let slot = this.#home(low, high);
    while (this.#slots[slot * ENTRY_WORDS + 2] !== 0) slot = (slot + 1) & this.#mask;
    const at = slot * ENTRY_WORDS;
    this.#slots[at] = low;
    this.#slots[at + 1] = high;
    this.#slots[at + 2] = pack;
    this.#slots[at + 3] = chunk;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    this.#mask = this.#slots.length / ENTRY_WORDS - 1;
    for (let at = 0; at < old.length; at += ENTRY_WORDS)
      if (old[at + 2] !== 0) this.#insert(old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!);
  }
}
