/**
 * Console input that waits while the queue of the serial port is full.
 *
 * Thread: the device thread. The main thread enforces {@link MAX_WAITING_INPUT_BYTES} (DeviceThreadClient.input).
 *
 * A snapshot has only the input that the port has taken.
 */

/** The most input that may wait for a guest that does not read. A pasted file fits. */
export const MAX_WAITING_INPUT_BYTES = 1 << 20;

export class ConsoleInput {
  readonly #accept: (bytes: Uint8Array) => number;
  readonly #taken: (bytes: number) => void;
  readonly #waiting: Uint8Array[] = [];

  /** `accept` takes the first n bytes and returns n. `taken` is called with the number of bytes that left the queue. */
  constructor(accept: (bytes: Uint8Array) => number, taken: (bytes: number) => void) {
    this.#accept = accept;
    this.#taken = taken;
  }

  write(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#waiting.push(bytes);
    this.drain();
  }

  /** Offers the waiting bytes again. Call it when the port has room. */
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
