/**
 * The places in this store of the chunks of an incoming snapshot, by the numbers under which they were offered.
 *
 * Memory: four bytes per chunk. A word holds the index of a pack in a short list, and the chunk.
 */
import { PACK_CHUNKS } from '../pack/pack-format.js';
import { WordList } from './word-list.js';

/** As many packs as a word has room for. A save holds and writes fewer. */
const MAX_PACKS = 2 ** 32 / PACK_CHUNKS;

export class ChunkPlaces {
  readonly #words = new WordList();
  readonly #packs: number[] = [];
  /** The index of each pack in `#packs`. */
  readonly #indices = new Map<number, number>();

  get length(): number {
    return this.#words.length;
  }

  #encode(pack: number, chunk: number): number {
    let index = this.#indices.get(pack);
    if (index === undefined) {
      index = this.#packs.length;
      if (index === MAX_PACKS) throw new Error(`a copy refers to more than ${MAX_PACKS} packs`);
      this.#packs.push(pack);
      this.#indices.set(pack, index);
    }
    return index * PACK_CHUNKS + chunk;
  }

  /** `places`: pairs of pack and chunk. */
  push(places: Uint32Array): void {
    this.#words.push(
      Uint32Array.from({ length: places.length / 2 }, (_, i) =>
        this.#encode(places[2 * i]!, places[2 * i + 1]!),
      ),
    );
  }

  set(number: number, pack: number, chunk: number): void {
    this.#words.set(number, this.#encode(pack, chunk));
  }

  pack(number: number): number {
    return this.#packs[Math.floor(this.#words.at(number) / PACK_CHUNKS)]!;
  }

  chunk(number: number): number {
    return this.#words.at(number) % PACK_CHUNKS;
  }
}
