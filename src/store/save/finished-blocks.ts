/**
 * The blocks of a region that a save has finished, by number: 4 bytes for each block of the region, and the entry of each
 * stored block as in the snapshot's file.
 */
import { type BlockEntry, BlockList } from '../snapshot/block-list.js';

/** What is known of a block. A stored one has the number of its entry, counted from 1. */
const UNFINISHED = 0;
const ZERO = -1;
const KEPT = -2;

export class FinishedBlocks {
  #states = new Int32Array(0);
  readonly #entries = new BlockList();
  #count = 0;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  has(number: number): boolean {
    return this.#state(number) !== UNFINISHED;
  }

  /** All its pages are zero. */
  isZero(number: number): boolean {
    return this.#state(number) === ZERO;
  }

  /** It is the base's. */
  isKept(number: number): boolean {
    return this.#state(number) === KEPT;
  }

  /** Null: it was not stored. */
  storedEntry(number: number): BlockEntry | null {
    const state = this.#state(number);
    return state > 0 ? this.#entries.at(state - 1) : null;
  }

  setZero(number: number): void {
    this.#set(number, ZERO);
  }

  setKept(number: number): void {
    this.#set(number, KEPT);
  }

  setStored(entry: BlockEntry): void {
    this.#entries.push(entry);
    this.#set(entry.block, this.#entries.length);
  }

  delete(number: number): void {
    if (this.has(number)) this.#count--;
    this.#states[number] = UNFINISHED;
  }

  /** Ascending. */
  *storedEntries(): Generator<BlockEntry> {
    for (const state of this.#states) if (state > 0) yield this.#entries.at(state - 1);
  }

  #state(number: number): number {
    return this.#states[number] ?? UNFINISHED;
  }

  #set(number: number, state: number): void {
    if (number >= this.#states.length) {
      const grown = new Int32Array(Math.max(64, 2 * number));
      grown.set(this.#states);
      this.#states = grown;
    }
    if (!this.has(number)) this.#count++;
    this.#states[number] = state;
  }
}
