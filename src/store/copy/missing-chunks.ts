/** Which chunks of a snapshot that arrives are not in this store, by the numbers under which they were offered. */
import { hash } from 'node:crypto';
import { FRAME_CHUNKS, SHA256_BYTES } from '../format.js';
import { WordList } from './word-list.js';

/** A bit a chunk that was offered, and what the missing ones must be: a digest over those of each frame of them. */
export class MissingChunks {
  #bits = new Uint8Array(1024);
  readonly #digests = new WordList();
  readonly #frame = Buffer.alloc(FRAME_CHUNKS * SHA256_BYTES);
  #inFrame = 0;
  count = 0;

  /** `number` is above all that were added. */
  add(number: number, digest: Uint8Array): void {
    if (number >>> 3 >= this.#bits.length) {
      const grown = new Uint8Array(2 * (number >>> 3));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    this.#bits[number >>> 3]! |= 1 << (number & 7);
    this.count++;
    this.#frame.set(digest, this.#inFrame++ * SHA256_BYTES);
    if (this.#inFrame === FRAME_CHUNKS) this.end();
  }

  /** Ends a frame; after the last chunk there is one that is not full. */
  end(): void {
    if (this.#inFrame === 0) return;
    const digest = hash('sha256', this.#frame.subarray(0, this.#inFrame * SHA256_BYTES), 'buffer');
    this.#digests.push(new Uint32Array(new Uint8Array(digest).buffer));
    this.#inFrame = 0;
  }

  /** A bit for each of so many chunks. */
  bits(chunks: number): Uint8Array {
    const bits = new Uint8Array(Math.ceil(chunks / 8));
    bits.set(this.#bits.subarray(0, bits.length));
    return bits;
  }

  /** The SHA-256 of the SHA-256s of a frame. */
  digestOf(frame: number): Uint8Array {
    const words = Uint32Array.from({ length: SHA256_BYTES / 4 }, (_, i) =>
      this.#digests.at((frame * SHA256_BYTES) / 4 + i),
    );
    return new Uint8Array(words.buffer);
  }

  /** The number of the first missing chunk from `number` on; there is one. */
  next(number: number): number {
    while ((this.#bits[number >>> 3]! & (1 << (number & 7))) === 0) number++;
    return number;
  }
}
