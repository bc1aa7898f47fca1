/** Where the chunks of a snapshot that arrives are in this store, by the numbers under which they were offered. */
import { PACK_CHUNKS } from '../format.js';
import { WordList } from './word-list.js';

/** What a word has room for. A save holds fewer packs, and those that it writes are fewer still. */
const MAX_PACKS = 2 ** 32 / PACK_CHUNKS;

/** Four bytes a chunk: there are few packs. */
export class ChunkPlaces {
  readonly #words = new WordList();
  readonly #packs: number[] = [];
  readonly #numbers = new Map<number, number>();

  get length(): number {
    return this.#words.length;
  }

  #encoded(pack: number, chunk: number): number {
    let number = this.#numbers.get(pack);
    if (number === undefined) {
      number = this.#packs.length;
      if (number === MAX_PACKS) throw new Error('a copy cannot refer to so many packs');
      this.#packs.push(pack);
      this.#numbers.set(pack, number);
    }
    return number * PACK_CHUNKS + chunk;
  }

  /** `places`: pairs of pack and chunk. */
  push(places: Uint32Array): void {
    this.#words.push(
      Uint32Array.from({ length: places.length / 2 }, (_, i) =>
        this.#encoded(places[2 * i]!, places[2 * i + 1]!),
      ),
    );
  }

  set(index: number, pack: number, chunk: number): void {
    this.#words.set(index, this.#encoded(pack, chunk));
  }

  pack(index: number): number {
    return this.#packs[Math.floor(this.#words.at(index) / PACK_CHUNKS)]!;
  }

  chunk(index: number): number {
    return this.#words.at(index) % PACK_CHUNKS;
  }
}
