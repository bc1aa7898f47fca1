/**
 * The offered chunks that this store lacks, and the digests that their pages must have.
 *
 * Memory: one bit per offered chunk, and three bytes per missing one. For 16 missing chunks (a frame) the SHA-256 of their
 * digests is kept in place of the digests themselves, and the ID of each digest.
 */
import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { DIGEST_BYTES, DIGESTS } from '../pack/digest.js';
import { FRAME_CHUNKS } from '../pack/pack-format.js';
import { WordList } from './word-list.js';

/** Words of a frame: a SHA-256, then a byte for the ID of each digest. */
const SHA256_WORDS = 32 / 4;
const FRAME_WORDS = SHA256_WORDS + FRAME_CHUNKS / 4;

/** What proves the pages of a frame. */
export interface MissingFrame {
  /** The ID of each chunk's digest. */
  readonly ids: Uint8Array;
  /** The SHA-256 of the digests. */
  readonly digest: Uint8Array;
}

export class MissingChunks {
  #bits = new Uint8Array(1024);
  readonly #frames = new WordList();
  readonly #digests = Buffer.alloc(FRAME_CHUNKS * DIGEST_BYTES);
  readonly #ids = new Uint8Array(FRAME_CHUNKS);
  #inFrame = 0;
  #last = -1;
  count = 0;

  /** Numbers ascend from call to call. */
  add(number: number, digestId: number, digest: Uint8Array): void {
    assert(number > this.#last, 'numbers of missing chunks ascend');
    assert(DIGESTS[digestId] && digestId < 256, 'a byte holds the ID of a digest');
    this.#last = number;
    if (number >>> 3 >= this.#bits.length) {
      const grown = new Uint8Array(2 * (number >>> 3));
      grown.set(this.#bits);
      this.#bits = grown;
    }
    this.#bits[number >>> 3]! |= 1 << (number & 7);
    this.count++;
    this.#ids[this.#inFrame] = digestId;
    this.#digests.set(digest, this.#inFrame++ * DIGEST_BYTES);
    if (this.#inFrame === FRAME_CHUNKS) this.end();
  }

  /** Ends the current frame. To be called after the last chunk, because the last frame may not be full. */
  end(): void {
    if (this.#inFrame === 0) return;
    const digest = hash('sha256', this.#digests.subarray(0, this.#inFrame * DIGEST_BYTES), 'buffer');
    this.#frames.push(new Uint32Array(new Uint8Array(digest).buffer));
    this.#frames.push(new Uint32Array(this.#ids.slice().buffer));
    this.#inFrame = 0;
  }

  /** One bit for each of `chunks` offered chunks. */
  bits(chunks: number): Uint8Array {
    const bits = new Uint8Array(Math.ceil(chunks / 8));
    bits.set(this.#bits.subarray(0, bits.length));
    return bits;
  }

  /** What proves the pages of frame `index`. */
  frame(index: number): MissingFrame {
    const words = Uint32Array.from({ length: FRAME_WORDS }, (_, i) =>
      this.#frames.at(index * FRAME_WORDS + i),
    );
    const count = Math.min(FRAME_CHUNKS, this.count - index * FRAME_CHUNKS);
    return {
      digest: new Uint8Array(words.buffer, 0, 4 * SHA256_WORDS),
      ids: new Uint8Array(words.buffer, 4 * SHA256_WORDS, count),
    };
  }

  /** The lowest missing number that is not below `number`. There must be one. */
  next(number: number): number {
    assert(number <= this.#last, 'there is no further missing chunk');
    while ((this.#bits[number >>> 3]! & (1 << (number & 7))) === 0) number++;
    return number;
  }
}
