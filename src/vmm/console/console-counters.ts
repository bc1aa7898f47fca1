/**
 * Counts how much console input and output the main thread and the device thread have taken from each other. The counts
 * are in shared memory, so that no message needs an acknowledgement.
 *
 * Invariant: the counts wrap at 2^32. Only their differences have a meaning ({@link countBetween}).
 */

const OUTPUT_MESSAGES = 0;
const INPUT_BYTES = 1;

/** How far `later` is ahead of `earlier`. */
export const countBetween = (earlier: number, later: number): number => (later - earlier) >>> 0;

export class ConsoleCounters {
  /** The memory of the counts, for the {@link ConsoleCounters} of the other thread. */
  readonly shared: SharedArrayBuffer;
  readonly #counts: Uint32Array;

  constructor(shared: SharedArrayBuffer = new SharedArrayBuffer(8)) {
    this.shared = shared;
    this.#counts = new Uint32Array(shared);
  }

  /** Messages of console output that the main thread has received. */
  get outputMessages(): number {
    return Atomics.load(this.#counts, OUTPUT_MESSAGES);
  }

  addOutputMessage(): void {
    Atomics.add(this.#counts, OUTPUT_MESSAGES, 1);
  }

  /** Bytes of console input that the serial port has accepted. */
  get inputBytes(): number {
    return Atomics.load(this.#counts, INPUT_BYTES);
  }

  addInputBytes(bytes: number): void {
    Atomics.add(this.#counts, INPUT_BYTES, bytes);
  }
}
