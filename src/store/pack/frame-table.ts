/** The frame table of a pack: where each frame is and what it holds (docs/format.md, "Trailer"). */
import { FRAME_CHUNKS, FRAME_ENTRY_BYTES, type FrameEntry } from './pack-format.js';

const ENTRY_WORDS = FRAME_ENTRY_BYTES / 4;

/** Kept as on disk, four words an entry: offset, stored bytes, first position, chunks and flags. */
export class FrameTable {
  #words: Uint32Array;
  #count: number;

  /** `bytes`: a table as stored; it is copied. */
  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    this.#words = new Uint32Array(bytes.length / 4);
    new Uint8Array(this.#words.buffer).set(bytes);
    this.#count = bytes.length / FRAME_ENTRY_BYTES;
  }

  get length(): number {
    return this.#count;
  }

  at(index: number): FrameEntry {
    const words = this.#words;
    const word = index * ENTRY_WORDS;
    const chunksAndFlags = words[word + 3]!;
    return {
      offset: words[word]!,
      storedBytes: words[word + 1]!,
      first: words[word + 2]!,
      chunks: chunksAndFlags & 0xffff,
      flags: chunksAndFlags >>> 16,
    };
  }

  *[Symbol.iterator](): Iterator<FrameEntry> {
    for (let i = 0; i < this.#count; i++) yield this.at(i);
  }

  push({ offset, storedBytes, first, chunks, flags }: FrameEntry): void {
    const word = this.#count * ENTRY_WORDS;
    if (word === this.#words.length) {
      const grown = new Uint32Array(Math.max(256, 2 * this.#words.length));
      grown.set(this.#words);
      this.#words = grown;
    }
    this.#words.set([offset, storedBytes, first, (chunks | (flags << 16)) >>> 0], word);
    this.#count++;
  }

  /** Index of the frame that holds the chunk at a position. */
  indexOf(position: number): number {
    let low = Math.min(Math.floor(position / FRAME_CHUNKS), this.#count - 1); // no frame has more chunks
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#words[middle * ENTRY_WORDS + 2]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** As stored. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, this.#count * FRAME_ENTRY_BYTES);
  }
}
