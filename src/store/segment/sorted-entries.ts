/**
 * Sorts and merges the entries of segments (docs/format.md, "Segments"). An entry has four words: fingerprint low,
 * fingerprint high, pack, chunk. Entries ascend by fingerprint, pack and chunk.
 */

export const ENTRY_BYTES = 16;
export const ENTRY_WORDS = ENTRY_BYTES / 4;

/** Negative if the entry at word `i` of `a` comes before the entry at word `j` of `b`. */
export function compareEntries(a: Uint32Array, i: number, b: Uint32Array, j: number): number {
  return a[i + 1]! - b[j + 1]! || a[i]! - b[j]! || a[i + 2]! - b[j + 2]! || a[i + 3]! - b[j + 3]!;
}

/** A sorted copy. */
export function sortEntries(words: Uint32Array): Uint32Array {
  const count = words.length / ENTRY_WORDS;
  // Floats compare faster than the four words of an entry. A float holds the highest 53 bits of a fingerprint; the
  // words decide between entries that share them.
  const keys = new Float64Array(count);
  for (let i = 0; i < count; i++)
    keys[i] = words[i * ENTRY_WORDS + 1]! * 2097152 + (words[i * ENTRY_WORDS]! >>> 11);
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i++) order[i] = i;
  order.sort((a, b) => keys[a]! - keys[b]! || compareEntries(words, a * ENTRY_WORDS, words, b * ENTRY_WORDS));
  const sorted = new Uint32Array(words.length);
  for (let i = 0; i < count; i++) {
    const from = order[i]! * ENTRY_WORDS;
    sorted.set(words.subarray(from, from + ENTRY_WORDS), i * ENTRY_WORDS);
  }
  return sorted;
}

/** Walks entries that come in parts; each part is valid until the next. */
class Cursor {
  words = new Uint32Array(0);
  /** Where the current entry begins in `words`. */
  at = 0;
  readonly #parts: Iterator<Uint32Array>;

  constructor(parts: Iterable<Uint32Array>) {
    this.#parts = parts[Symbol.iterator]();
  }

  /** Moves to the next entry; false if there is none. */
  advance(): boolean {
    this.at += ENTRY_WORDS;
    while (this.at >= this.words.length) {
      const part = this.#parts.next();
      if (part.done) return false;
      this.words = part.value as typeof this.words;
      this.at = 0;
    }
    return true;
  }

  close(): void {
    this.#parts.return?.();
  }
}

/** Entries of a part of the result. */
const PART_ENTRIES = 65536;

/**
 * Merges sorted entries and leaves out those for which `keep` returns false. The result comes in parts; each part is
 * valid until the next.
 */
export function* mergeEntries(
  sources: readonly Iterable<Uint32Array>[],
  keep: (pack: number, chunk: number) => boolean = () => true,
): Generator<Uint32Array> {
  const part = new Uint32Array(PART_ENTRIES * ENTRY_WORDS);
  let filled = 0;
  const cursors = sources.map((source) => new Cursor(source));
  try {
    // A heap of cursors, ordered by their current entries, smallest first.
    const heap = cursors.filter((cursor) => cursor.advance());
    const isBefore = (a: Cursor, b: Cursor): boolean => compareEntries(a.words, a.at, b.words, b.at) < 0;
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
    for (let i = (heap.length >> 1) - 1; i >= 0; i--) sink(i);
    while (heap.length > 0) {
      const top = heap[0]!;
      const { words, at } = top;
      if (keep(words[at + 2]!, words[at + 3]!)) {
        part[filled] = words[at]!;
        part[filled + 1] = words[at + 1]!;
        part[filled + 2] = words[at + 2]!;
        part[filled + 3] = words[at + 3]!;
        filled += ENTRY_WORDS;
        if (filled === part.length) {
          yield part;
          filled = 0;
        }
      }
      if (!top.advance()) {
        const last = heap.pop()!;
        if (heap.length === 0) break;
        if (last !== top) heap[0] = last;
      }
      sink(0);
    }
    if (filled > 0) yield part.subarray(0, filled);
  } finally {
    for (const cursor of cursors) cursor.close();
  }
}
