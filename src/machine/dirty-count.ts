/**
 * How much of a machine has changed since its last save, counted only when somebody asks, and not too often.
 *
 * Invariant: counting takes at most about 1% of the time of the main thread, however large the machine is.
 */

/** For how long a count holds. */
const HOLDS_MS = 1000;
/** For how many times the time that counting took it holds. */
const HOLDS_TIMES = 100;

export interface DirtyCountOptions {
  readonly nowMs?: () => number;
}

export class DirtyCount {
  readonly #count: () => number | null;
  readonly #nowMs: () => number;
  #last: { readonly snapshot: string; readonly bytes: number; readonly untilMs: number } | null = null;

  constructor(count: () => number | null, { nowMs = () => performance.now() }: DirtyCountOptions = {}) {
    this.#count = count;
    this.#nowMs = nowMs;
  }

  /**
   * `snapshot`: what the machine was last saved to or restored from; null: nothing. A new one is counted anew, and so is
   * what was not known.
   */
  bytes(snapshot: string | null): number | null {
    if (snapshot === null) return null;
    const beganMs = this.#nowMs();
    if (this.#last?.snapshot === snapshot && beganMs < this.#last.untilMs) return this.#last.bytes;
    const bytes = this.#count();
    const endedMs = this.#nowMs();
    const untilMs = endedMs + Math.max(HOLDS_MS, (endedMs - beganMs) * HOLDS_TIMES);
    this.#last = bytes === null ? null : { snapshot, bytes, untilMs };
    return bytes;
  }
}
