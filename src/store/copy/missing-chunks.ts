/**
 * The offered chunks that this store lacks, and the digests that their pages must have.
 *
 * Memory: one bit per offered chunk, and two bytes per missing one. A digest over the SHA-256s of 16 missing chunks (a
 * frame) is kept in place of the SHA-256s themselves.
 */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { FRAME_CHUNKS, SHA256_BYTES } from '../pack/pack-format.js';
import { WordList } from './word-list.js';

export class MissingChunks {
  #bits = new Uint8Array(1024);
  readonly #digests = new WordList();
  readonly #frame = Buffer.alloc(FRAME_CHUNKS * SHA256_BYTES);
  #inFrame = 0;
  #last = -1;
  count = 0;

  /** Numbers ascend from call to call. */
  add(number: number, digest: Uint8Array): void {
    assert(number > this.#last, 'numbers of missing chunks ascend');
    this.#last = number;
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

  /** Ends the current frame. To be called after the last chunk, because the last frame may not be full. */
  end(): void {
    if (this.#inFrame === 0) return;
    const digest = hash('sha256', this.#frame.subarray(0, this.#inFrame * SHA256_BYTES), 'buffer');
    this.#digests.push(new Uint32Array(new Uint8Array(digest).buffer));
    this.#inFrame = 0;
  }

  /** One bit for each of `chunks` offered chunks. */
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

  /** The lowest missing number that is not below `number`. There must be one. */
  next(number: number): number {
    assert(number <= this.#last, 'there is no further missing chunk');
    while ((this.#bits[number >>> 3]! & (1 << (number & 7))) === 0) number++;
    return number;
  }
}
