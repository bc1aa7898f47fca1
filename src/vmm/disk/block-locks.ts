/**
 * The blocks of a disk that are being copied or first written. An operation on one of them waits until it is released.
 *
 * Invariants:
 * - Nothing waits while it holds a lock, so no two operations wait for each other.
 * - Memory and time grow with the operations, not with the blocks: one discard may have millions.
 */
import assert from 'node:assert/strict';

interface Held {
  readonly first: number;
  readonly last: number;
  readonly waiting: (() => void)[];
}

export class BlockLocks {
  readonly #held = new Set<Held>();

  /** If a block from `first` to `last` is held, calls `then` once it is released, and returns true. */
  waitFor(first: number, last: number, then: () => void): boolean {
    const held = this.#find(first, last);
    held?.waiting.push(then);
    return held !== undefined;
  }

  /** Takes the blocks from `first` to `last`, which nobody holds. Returns the function that releases them. */
  hold(first: number, last: number): () => void {
    assert(this.#find(first, last) === undefined, `a block from ${first} to ${last} is held twice`);
    const held: Held = { first, last, waiting: [] };
    this.#held.add(held);
    return () => {
      this.#held.delete(held);
      for (const then of held.waiting) then();
    };
  }

  #find(first: number, last: number): Held | undefined {
    for (const held of this.#held) if (held.first <= last && first <= held.last) return held;
    return undefined;
  }
}
