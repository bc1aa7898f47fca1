/** Sets of chunks, by pack: up to 64 numbers, then one bit for each chunk (4 KiB for a pack). */
import { BitSet } from '../../bit-set.js';
import { PACK_CHUNKS } from '../pack/pack-format.js';

/** Few chunks of a pack are a list, because a hostile manifest can name many packs at no cost. */
const LISTED_CHUNKS = 64;

export class ChunkSet {
  readonly #packs = new Map<number, number[] | BitSet>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Returns false if the set has the chunk already, or no pack can have it. */
  add(pack: number, chunk: number): boolean {
    if (chunk >= PACK_CHUNKS) return false;
    if (this.has(pack, chunk)) return false;
    const known = this.#packs.get(pack);
    if (known === undefined) this.#packs.set(pack, [chunk]);
    else if (known instanceof BitSet) known.add(chunk);
    else if (known.length < LISTED_CHUNKS) known.push(chunk);
    else this.#packs.set(pack, bitSetOf([...known, chunk]));
    this.#size++;
    return true;
  }

  has(pack: number, chunk: number): boolean {
    const known = this.#packs.get(pack);
    return known instanceof BitSet ? known.has(chunk) : (known?.includes(chunk) ?? false);
  }

  /** The chunks of a pack, one bit each; undefined if there are none. */
  bits(pack: number): Uint8Array | undefined {
    const known = this.#packs.get(pack);
    if (known === undefined) return undefined;
    return (known instanceof BitSet ? known : bitSetOf(known)).bytes;
  }

  /** How many chunks of a pack are in the set. */
  count(pack: number): number {
    const known = this.#packs.get(pack) ?? [];
    return known instanceof BitSet ? known.count() : known.length;
  }

  packs(): Iterable<number> {
    return this.#packs.keys();
  }
}

function bitSetOf(chunks: readonly number[]): BitSet {
  const bits = new BitSet(PACK_CHUNKS);
  for (const chunk of chunks) bits.add(chunk);
  return bits;
}
