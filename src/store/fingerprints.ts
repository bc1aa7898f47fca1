/**
 * From a fingerprint to the places of chunks that have it (docs/format.md, "Segments").
 *
 * A segment is a sorted list of entries, 16 bytes each: fingerprint (8), pack (4), chunk (4). A save makes one; they
 * are merged afterwards (their files: segment-file.ts). Several entries may have one fingerprint: the bytes decide, so an entry is a hint and may
 * even be stale.
 */

export const SEGMENT_ENTRY_BYTES = 16;

/** So many places are tried for one fingerprint; a guest that forges collisions gains nothing but copies. */
export const MAX_CANDIDATES = 8;

const WORDS = SEGMENT_ENTRY_BYTES / 4;

/** A sorted segment as its 32-bit words: fingerprint low, fingerprint high, pack, chunk. */
export class Segment {
  readonly count: number;

  constructor(readonly words: Uint32Array) {
    this.count = Math.floor(words.length / WORDS);
  }

  /** Index of the first entry that does not follow the one before it; -1: there is none. */
  firstDisorder(): number {
    for (let i = 1; i < this.count; i++) if (compareEntries(this.words, i - 1, this.words, i) > 0) return i;
    return -1;
  }

  /** Index of the first entry whose fingerprint is not below the one given. */
  lowerBound(low: number, high: number): number {
    const words = this.words;
    let from = 0;
    let to = this.count;
    // Fingerprints are spread evenly: interpolate until the range is small, then halve.
    for (let tries = 0; tries < 4 && to - from > 32; tries++) {
      const first = words[from * WORDS + 1]!;
      const last = words[(to - 1) * WORDS + 1]!;
      if (high <= first || high > last) break;
      const slack = 16;
      const guess = from + Math.floor(((to - 1 - from) * (high - first)) / (last - first));
      const below = Math.max(from, guess - slack);
      const above = Math.min(to - 1, guess + slack);
      if (words[below * WORDS + 1]! < high) from = below;
      else if (words[below * WORDS + 1]! > high) to = below + 1;
      if (above < to && words[above * WORDS + 1]! > high) to = above + 1;
    }
    while (from < to) {
      const middle = (from + to) >>> 1;
      const h = words[middle * WORDS + 1]!;
      if (h < high || (h === high && words[middle * WORDS]! < low)) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** Appends to `places` (pairs pack, chunk) what has the fingerprint; returns how many pairs are in it now. */
  find(low: number, high: number, places: Uint32Array, found: number): number {
    const words = this.words;
    for (let i = this.lowerBound(low, high); i < this.count && found < MAX_CANDIDATES; i++) {
      const at = i * WORDS;
      if (words[at] !== low || words[at + 1] !== high) break;
      places[found * 2] = words[at + 2]!;
      places[found * 2 + 1] = words[at + 3]!;
      found++;
    }
    return found;
  }
}

/** Sorts entries (words as in {@link Segment}) by fingerprint, pack, chunk; gives the bytes of a segment. */
export function sortEntries(words: Uint32Array): Uint8Array {
  const count = words.length / WORDS;
  // 64-bit numbers do not sort fast in JavaScript as objects do not; a float holds 53 bits of the fingerprint
  // exactly, and the few entries that share them are put right afterwards.
  const keys = new Float64Array(count);
  for (let i = 0; i < count; i++) keys[i] = words[i * WORDS + 1]! * 2097152 + (words[i * WORDS]! >>> 11);
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  order.sort((a, b) => keys[a]! - keys[b]! || compareEntries(words, a, words, b));
  const sorted = new Uint32Array(words.length);
  for (let i = 0; i < count; i++) {
    const from = order[i]! * WORDS;
    sorted.set(words.subarray(from, from + WORDS), i * WORDS);
  }
  return new Uint8Array(sorted.buffer);
}

function compareEntries(a: Uint32Array, i: number, b: Uint32Array, j: number): number {
  const x = i * WORDS;
  const y = j * WORDS;
  return a[x + 1]! - b[y + 1]! || a[x]! - b[y]! || a[x + 2]! - b[y + 2]! || a[x + 3]! - b[y + 3]!;
}

/** Entries of a merger that are handed on at once. */
const PART_ENTRIES = 65536;

/**
 * Merges sorted segments, keeping the entries for which `keep(pack, chunk)` holds. Gives the bytes of the result in
 * parts; each is valid until the next.
 */
export function* mergeSegments(
  segments: readonly Segment[],
  keep: (pack: number, chunk: number) => boolean = () => true,
): Generator<Uint8Array> {
  const part = new Uint32Array(PART_ENTRIES * WORDS);
  let filled = 0;
  // A heap of segments by their next entry, smallest first.
  const next = segments.map(() => 0);
  const heap = segments.map((_, i) => i).filter((i) => segments[i]!.count > 0);
  const isBefore = (a: number, b: number): boolean =>
    compareEntries(segments[a]!.words, next[a]!, segments[b]!.words, next[b]!) < 0;
  const sink = (from: number): void => {
    for (let i = from; ; ) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < heap.length && isBefore(heap[child]!, heap[least]!)) least = child;
      if (least === i) return;
      [heap[i], heap[least]] = [heap[least]!, heap[i]!];
      i = least;
    }
  };
  for (let i = heap.length >> 1; i >= 0; i--) if (i < heap.length) sink(i);
  while (heap.length > 0) {
    const top = heap[0]!;
    const { words, count } = segments[top]!;
    const at = next[top]!++ * WORDS;
    if (keep(words[at + 2]!, words[at + 3]!)) {
      part[filled] = words[at]!;
      part[filled + 1] = words[at + 1]!;
      part[filled + 2] = words[at + 2]!;
      part[filled + 3] = words[at + 3]!;
      filled += WORDS;
      if (filled === part.length) {
        yield new Uint8Array(part.buffer);
        filled = 0;
      }
    }
    if (next[top] === count) {
      const last = heap.pop()!;
      if (heap.length === 0) break;
      if (last !== top) heap[0] = last;
    }
    sink(0);
  }
  if (filled > 0) yield new Uint8Array(part.buffer, 0, filled * 4);
}

/**
 * The chunks that one save has written so far: fingerprint → pack and chunk number. Open addressing; entries are
 * added, never removed.
 */
export class FingerprintTable {
  /** Four words a slot, as in {@link Segment}; pack 0 means free (no pack has that number). */
  #slots = new Uint32Array(4096 * WORDS);
  #mask = 4095;
  #count = 0;

  get count(): number {
    return this.#count;
  }

  find(low: number, high: number, places: Uint32Array, found: number): number {
    const slots = this.#slots;
    for (let slot = this.#home(low, high); found < MAX_CANDIDATES; slot = (slot + 1) & this.#mask) {
      const at = slot * WORDS;
      if (slots[at + 2] === 0) break;
      if (slots[at] !== low || slots[at + 1] !== high) continue;
      places[found * 2] = slots[at + 2]!;
      places[found * 2 + 1] = slots[at + 3]!;
      found++;
    }
    return found;
  }

  /** The caller has looked first, and does not add what has {@link MAX_CANDIDATES} places already. */
  add(low: number, high: number, pack: number, chunk: number): void {
    if ((this.#count + 1) * 2 > this.#mask) this.#grow();
    this.#insert(low, high, pack, chunk);
    this.#count++;
  }

  #home(low: number, high: number): number {
    return (Math.imul(low ^ (high >>> 7), 0x9e3779b1) >>> 8) & this.#mask;
  }

  #insert(low: number, high: number, pack: number, chunk: number): void {
    let slot = this.#home(low, high);
    while (this.#slots[slot * WORDS + 2] !== 0) slot = (slot + 1) & this.#mask;
    const at = slot * WORDS;
    this.#slots[at] = low;
    this.#slots[at + 1] = high;
    this.#slots[at + 2] = pack;
    this.#slots[at + 3] = chunk;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Uint32Array(old.length * 2);
    this.#mask = this.#slots.length / WORDS - 1;
    for (let at = 0; at < old.length; at += WORDS)
      if (old[at + 2] !== 0) this.#insert(old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!);
  }
}
