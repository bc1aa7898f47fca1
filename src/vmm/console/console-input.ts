/**
 * Bytes on their way from outside to the serial port, held here while the port's own queue is full.
 *
 * Only what the port has taken is part of a snapshot. The limit is kept by the main thread (Machine.writeConsole).
 */

/** The most bytes that may wait for a guest that does not read: the amount a pasted file may have. */
export const MAX_WAITING_INPUT_BYTES = 1 << 20;

export class ConsoleInput {
  readonly #accept: (bytes: Uint8Array) => number;
  readonly #taken: (bytes: number) => void;
  readonly #waiting: Uint8Array[] = [];

  /** `accept` takes the first n of the bytes and says n; `taken` is told how many left this queue. */
  constructor(accept: (bytes: Uint8Array) => number, taken: (bytes: number) => void) {
    this.#accept = accept;
    this.#taken = taken;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#waiting.push(bytes);
    this.drain();
  }

  /** Offers again what waits; to be called when the port has room. */
  drain(): void {
    let total = 0;
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const accepted = this.#accept(first);
      total += accepted;
      if (accepted < first.length) {
        this.#waiting[0] = first.subarray(accepted);
        break;
      }
      this.#waiting.shift();
    }
    if (total > 0) this.#taken(total);
  }
}
