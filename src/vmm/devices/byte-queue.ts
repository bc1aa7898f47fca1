/** A queue of bytes of fixed capacity. */
export class ByteQueue {
  readonly #bytes: Uint8Array;
  #first = 0;
  length = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  /** Appends the bytes that there is room for, and returns how many. */
  push(bytes: Uint8Array): number {
    const count = Math.min(bytes.length, this.#bytes.length - this.length);
    for (let i = 0; i < count; i++) this.pushByte(bytes[i]!);
    return count;
  }

  /** The queue must not be full. */
  pushByte(value: number): void {
    this.#bytes[(this.#first + this.length) % this.#bytes.length] = value;
    this.length++;
  }

  /** The queue must not be empty. */
  shift(): number {
    const value = this.#bytes[this.#first]!;
    this.#first = (this.#first + 1) % this.#bytes.length;
    this.length--;
    return value;
  }

  /** Puts a byte before the oldest. The queue must not be full. */
  unshiftByte(value: number): void {
    this.#first = (this.#first + this.#bytes.length - 1) % this.#bytes.length;
    this.#bytes[this.#first] = value;
    this.length++;
  }

  /** Takes the newest byte. The queue must not be empty. */
  pop(): number {
    this.length--;
    return this.#bytes[(this.#first + this.length) % this.#bytes.length]!;
  }

  clear(): void {
    this.length = 0;
  }

  /** A copy of all bytes, oldest first. */
  peek(): Uint8Array {
    return Uint8Array.from(
      { length: this.length },
      (_, i) => this.#bytes[(this.#first + i) % this.#bytes.length]!,
    );
  }
}
