/**
 * The distinct chunks of a snapshot, and the numbers under which a copy offers them.
 *
 * Invariant: numbers ascend by pack and chunk, so the source reads each pack from front to back. Memory: one bit per
 * chunk, in runs of 512.
 */
import assert from 'node:assert/strict';
import { PACK_CHUNKS } from '../pack/pack-format.js';

/** Chunks of a pack whose bits are kept together. */
const RUN_CHUNKS = 512;
const RUNS_PER_PACK = PACK_CHUNKS / RUN_CHUNKS;

interface Run {
  readonly bits: Uint32Array;
  /** The number of its first chunk. */
  first: number;
}

const popCount = (word: number): number => {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const nibbles = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};

export class ChunkNumbers {
  readonly #runs = new Map<number, Run>();
  /** Keys of runs, ascending; null until {@link number}. */
  #order: Float64Array | null = null;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(pack: number, chunk: number): boolean {
    const bits = this.#runs.get(keyOf(pack, chunk))?.bits;
    return bits !== undefined && (bits[(chunk % RUN_CHUNKS) >>> 5]! & (1 << (chunk & 31))) !== 0;
  }

  /** The caller has checked that the chunk exists: naming a chunk takes less memory than numbering it. */
  add(pack: number, chunk: number): void {
    assert(this.#order === null, 'chunks are numbered already');
    if (this.has(pack, chunk)) return;
    const key = keyOf(pack, chunk);
    let run = this.#runs.get(key);
    if (!run) {
      run = { bits: new Uint32Array(RUN_CHUNKS / 32), first: 0 };
      this.#runs.set(key, run);
    }
    run.bits[(chunk % RUN_CHUNKS) >>> 5]! |= 1 << (chunk & 31);
    this.#size++;
  }

  /** Numbers the chunks. None can be added afterwards. */
  number(): void {
    this.#order = Float64Array.from(this.#runs.keys()).sort();
    let first = 0;
    for (const key of this.#order) {
      const run = this.#runs.get(key)!;
      run.first = first;
      for (const word of run.bits) first += popCount(word);
    }
  }

  /** The number of a chunk that was added. */
  of(pack: number, chunk: number): number {
    const { bits, first } = this.#runs.get(keyOf(pack, chunk))!;
    const last = (chunk % RUN_CHUNKS) >>> 5;
    let number = first;
    for (let i = 0; i < last; i++) number += popCount(bits[i]!);
    return number + popCount(bits[last]! & ((1 << (chunk & 31)) - 1));
  }

  /** Ascending by number. */
  *places(): Generator<{ pack: number; chunk: number }> {
    assert(this.#order !== null, 'chunks are not numbered yet');
    for (const key of this.#order) {
      const { bits } = this.#runs.get(key)!;
      const pack = Math.floor(key / RUNS_PER_PACK);
      const from = (key % RUNS_PER_PACK) * RUN_CHUNKS;
      for (let i = 0; i < RUN_CHUNKS; i++)
        if ((bits[i >>> 5]! & (1 << (i & 31))) !== 0) yield { pack, chunk: from + i };
    }
  }
}

const keyOf = (pack: number, chunk: number): number => pack * RUNS_PER_PACK + Math.floor(chunk / RUN_CHUNKS);
