/**
 * Looks fingerprints up in a segment by reading the file, with the filter in memory. A long save uses it for the
 * segments that it has written itself. The filter answers nearly all lookups, and a mapped file would end up in memory
 * as a whole.
 *
 * Invariant: what is found is a hint. A lookup that fails, or that would take many reads, finds nothing.
 */
import { DamageError } from '../disk/damage.js';
import type { StoreFile } from '../disk/store-file.js';
import { MAX_CANDIDATES, type Segment } from './fingerprints.js';
import { filterOffset, HEADER_BYTES, openSegment, type SegmentRow } from './segment-file.js';
import { filterBytes, SegmentFilter } from './segment-filter.js';
import { ENTRY_BYTES, ENTRY_WORDS } from './sorted-entries.js';

/** Entries that are read at once. */
const WINDOW_ENTRIES = 256;
/** Three reads are usual, because fingerprints are spread evenly. */
const MAX_READS = 8;

export class SegmentProbe {
  readonly #opened: StoreFile;
  readonly #filter: SegmentFilter | null;
  readonly #words = new Uint32Array(WINDOW_ENTRIES * ENTRY_WORDS);
  readonly #bytes = new Uint8Array(this.#words.buffer);

  /** Errors: DAMAGED, and those of the system. */
  constructor(
    dir: string,
    readonly row: SegmentRow,
  ) {
    this.#opened = openSegment(dir, row);
    try {
      const length = filterBytes(row.entries);
      const filter = new Uint8Array(length);
      this.#opened.readInto(filter, filterOffset(row.entries), length);
      this.#filter = length > 0 ? new SegmentFilter(new Uint32Array(filter.buffer)) : null;
    } catch (error) {
      this.#opened.close();
      throw error;
    }
  }

  /** As {@link Segment.find}. */
  find(low: number, high: number, places: Uint32Array, found: number): number {
    if (found === MAX_CANDIDATES || this.#filter?.mayContain(low, high) === false) return found;
    try {
      return this.#search(low, high, places, found);
    } catch (error) {
      if (error instanceof DamageError) return found;
      throw error;
    }
  }

  #search(low: number, high: number, places: Uint32Array, before: number): number {
    const words = this.#words;
    // The fingerprint is between the entries `from` and `to`. The high words of its bounds are `lowest` and `highest`.
    let from = 0;
    let to = this.row.entries;
    let lowest = 0;
    let highest = 2 ** 32;
    for (let reads = 0; reads < MAX_READS && from < to; reads++) {
      const guess = from + Math.floor(((to - from) * (high - lowest)) / Math.max(1, highest - lowest));
      const first = Math.max(from, Math.min(guess - WINDOW_ENTRIES / 2, to - WINDOW_ENTRIES));
      const count = Math.min(WINDOW_ENTRIES, to - first);
      this.#opened.readInto(this.#bytes, HEADER_BYTES + first * ENTRY_BYTES, count * ENTRY_BYTES);
      const last = (count - 1) * ENTRY_WORDS;
      if (isBelow(low, high, words, 0)) {
        to = first;
        highest = words[1]!;
      } else if (isAbove(low, high, words, last)) {
        from = first + count;
        lowest = words[last + 1]!;
      } else {
        let found = before;
        for (let at = 0; at <= last && found < MAX_CANDIDATES; at += ENTRY_WORDS) {
          if (words[at] !== low || words[at + 1] !== high) continue;
          places[found * 2] = words[at + 2]!;
          places[found * 2 + 1] = words[at + 3]!;
          found++;
        }
        return found;
      }
    }
    return before;
  }

  close(): void {
    this.#opened.close();
  }
}

const isBelow = (low: number, high: number, words: Uint32Array, at: number): boolean =>
  high < words[at + 1]! || (high === words[at + 1] && low < words[at]!);

const isAbove = (low: number, high: number, words: Uint32Array, at: number): boolean =>
  high > words[at + 1]! || (high === words[at + 1] && low > words[at]!);
