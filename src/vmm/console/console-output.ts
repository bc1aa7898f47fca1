/**
 * Bytes on their way from the serial port to the main thread, gathered so that a character does not cost a message:
 * they go at the end of a line, when there are many, or when the device thread has nothing else to do.
 *
 * Thread: device thread. Invariants:
 * - The guest never waits for the main thread, and memory is bounded whatever the guest writes: at most
 *   {@link MAX_MESSAGES_UNDER_WAY} messages are under way, and at most {@link MAX_KEPT_BYTES} bytes wait behind them.
 * - Beyond that the oldest waiting bytes are dropped. The message that follows the gap says how many they were.
 */
import { countBetween } from './console-counters.js';

/** Without the end of a line, so many bytes make a message. */
const GATHERED_BYTES = 1024;
/** Under load messages grow up to this. */
const LARGEST_MESSAGE_BYTES = 16 * 1024;
/** 1 MiB of messages of the largest size. */
export const MAX_MESSAGES_UNDER_WAY = 64;
/** As much as the main thread keeps for a viewer that lags (ConsoleHub). */
export const MAX_KEPT_BYTES = 1 << 20;
const NEWLINE = 0x0a;

export class ConsoleOutput {
  readonly #send: (bytes: Uint8Array, missedBytes: number) => void;
  readonly #messagesTaken: () => number;
  readonly #ring = new Uint8Array(MAX_KEPT_BYTES);
  #start = 0;
  #length = 0;
  #missedBytes = 0;
  #messagesSent = 0;

  /**
   * `send` may keep the bytes it is given; `missedBytes` were dropped before them. `messagesTaken` says how many
   * messages have arrived in all (a count that wraps at 2^32).
   */
  constructor(send: (bytes: Uint8Array, missedBytes: number) => void, messagesTaken: () => number) {
    this.#send = send;
    this.#messagesTaken = messagesTaken;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether so many messages are under way that the next one has to wait. */
  get isHeldBack(): boolean {
    return countBetween(this.#messagesTaken(), this.#messagesSent) >= MAX_MESSAGES_UNDER_WAY;
  }

  write(bytes: Uint8Array): void {
    this.#keep(bytes);
    const afterLastLine = bytes.length - 1 - bytes.lastIndexOf(NEWLINE);
    if (afterLastLine < bytes.length) this.#sendFirst(this.#length - afterLastLine);
    else if (this.#length >= GATHERED_BYTES) this.flush();
  }

  /** Sends everything, or as much as may be under way. */
  flush(): void {
    this.#sendFirst(this.#length);
  }

  /** Sends everything, however much is under way: for a guest that stands still. */
  flushAll(): void {
    while (this.#length > 0) this.#sendPiece(this.#length);
  }

  #keep(bytes: Uint8Array): void {
    const kept = bytes.length > MAX_KEPT_BYTES ? bytes.subarray(-MAX_KEPT_BYTES) : bytes;
    const dropped = Math.max(0, this.#length + kept.length - MAX_KEPT_BYTES);
    this.#missedBytes += bytes.length - kept.length + dropped;
    this.#forget(dropped);
    const at = (this.#start + this.#length) % MAX_KEPT_BYTES;
    const head = Math.min(kept.length, MAX_KEPT_BYTES - at);
    this.#ring.set(kept.subarray(0, head), at);
    this.#ring.set(kept.subarray(head), 0);
    this.#length += kept.length;
  }

  #forget(bytes: number): void {
    this.#length -= bytes;
    // From the beginning again when it is empty: what a quiet guest writes stays within a few pages.
    this.#start = this.#length === 0 ? 0 : (this.#start + bytes) % MAX_KEPT_BYTES;
  }

  #sendFirst(bytes: number): void {
    for (let left = bytes; left > 0 && !this.isHeldBack; ) left -= this.#sendPiece(left);
  }

  /** Sends one message of at most `bytes`; says how many it holds. */
  #sendPiece(bytes: number): number {
    const length = Math.min(bytes, LARGEST_MESSAGE_BYTES, MAX_KEPT_BYTES - this.#start);
    this.#send(this.#ring.slice(this.#start, this.#start + length), this.#missedBytes);
    this.#missedBytes = 0;
    this.#messagesSent = (this.#messagesSent + 1) >>> 0;
    this.#forget(length);
    return length;
  }
}
