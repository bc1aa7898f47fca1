/**
 * Bytes on their way from the serial port to the main thread, gathered so that a character does not cost a message:
 * they go at the end of a line, when there are many, or when the device thread has nothing else to do.
 */

const CAPACITY_BYTES = 1024;
const NEWLINE = 0x0a;

export class ConsoleOutput {
  readonly #send: (bytes: Uint8Array) => void;
  #buffer = new Uint8Array(CAPACITY_BYTES);
  #length = 0;

  /** `send` may keep the bytes it is given. */
  constructor(send: (bytes: Uint8Array) => void) {
    this.#send = send;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  write(bytes: Uint8Array): void {
    for (const byte of bytes) {
      this.#buffer[this.#length++] = byte;
      if (byte === NEWLINE || this.#length === CAPACITY_BYTES) this.flush();
    }
  }

  flush(): void {
    if (this.#length === 0) return;
    this.#send(this.#buffer.slice(0, this.#length));
    this.#length = 0;
  }
}
