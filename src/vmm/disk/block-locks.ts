/**
 * The blocks of a disk that are being copied or first written. An operation on one of them waits until it is released.
 *
 * Invariant: nothing waits while it holds a lock, so no two operations wait for each other.
 */
import assert from 'node:assert/strict';

export class BlockLocks {
  readonly #held = new Map<number, (() => void)[]>();

  /** If a block from `first` to `last` is held, calls `then` once it is released, and returns true. */
  waitFor(first: number, last: number, then: () => void): boolean {
    if (this.#held.size === 0) return false;
    for (let block = first; block <= last; block++) {
      const waiting = this.#held.get(block);
      if (waiting) {
        waiting.push(then);
        return true;
      }
    }
    return false;
  }

  /** Takes blocks that nobody holds. Returns the function that releases them. */
  hold(blocks: readonly number[]): () => void {
    for (const block of blocks) {
      assert(!this.#held.has(block), `block ${block} is held twice`);
      this.#held.set(block, []);
    }
    return () => {
      const waiting = blocks.flatMap((block) => this.#held.get(block)!);
      for (const block of blocks) this.#held.delete(block);
      for (const then of waiting) then();
    };
  }
}
