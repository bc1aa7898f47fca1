/**
 * The chunks that a snapshot refers to, each once, and the numbers under which a copy offers them: in the order of
 * their places, so that packs are read from front to back. A bit a chunk.
 */
import { PACK_CHUNKS } from '../format.js';

/** Chunks of a run whose bits are kept together. */
const RUN_CHUNKS = 512;
const RUNS_PER_PACK = PACK_CHUNKS / RUN_CHUNKS;

interface Run {
  readonly bits: Uint32Array;
  /** The number of its first chunk. */
  first: number;
}

const bitsSet = (word: number): number => {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const nibbles = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
};

export class ChunkNumbers {
  readonly #runs = new Map<number, Run>();
  #order = new Float64Array(0);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(pack: number, chunk: number): boolean {
    const bits = this.#runs.get(keyOf(pack, chunk))?.bits;
    return bits !== undefined && (bits[(chunk % RUN_CHUNKS) >>> 5]! & (1 << (chunk & 31))) !== 0;
  }

  /** The caller has made sure that there is such a chunk: a number costs more memory than naming it does. */
  add(pack: number, chunk: number): void {
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

  /** Numbers what was added; nothing is added afterwards. */
  number(): void {
    this.#order = Float64Array.from(this.#runs.keys()).sort();
    let first = 0;
    for (const key of this.#order) {
      const run = this.#runs.get(key)!;
      run.first = first;
      for (const word of run.bits) first += bitsSet(word);
    }
  }

  /** Of a chunk that is there. */
  of(pack: number, chunk: number): number {
    const { bits, first } = this.#runs.get(keyOf(pack, chunk))!;
    const last = (chunk % RUN_CHUNKS) >>> 5;
    let number = first;
    for (let i = 0; i < last; i++) number += bitsSet(bits[i]!);
    return number + bitsSet(bits[last]! & ((1 << (chunk & 31)) - 1));
  }

  /** Ascending by number. */
  *places(): Generator<{ pack: number; chunk: number }> {
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
