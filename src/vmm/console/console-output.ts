/**
 * Gathers console output into messages for the main thread, because a message for each character would be slow. A
 * message is sent at a line end, when many bytes have gathered, or when the device thread is idle.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - The guest never waits for the main thread.
 * - Memory is bounded, whatever the guest writes. At most {@link MAX_MESSAGES_UNDER_WAY} messages are under way, and
 *   at most {@link MAX_KEPT_BYTES} bytes wait to be sent.
 * - If more bytes come, the oldest waiting bytes are dropped. The message after the gap has their number.
 */
import { countBetween } from './console-counters.js';

/** How many bytes without a line end are sent as a message. */
const GATHERED_BYTES = 1024;
/** The size of a message under load. */
const LARGEST_MESSAGE_BYTES = 16 * 1024;
/** 1 MiB of messages of the largest size. */
export const MAX_MESSAGES_UNDER_WAY = 64;
/** As much as ConsoleHub keeps for a viewer that is too slow. */
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
   * `send` may keep its bytes; `missedBytes` were dropped before them. `messagesTaken` returns how many messages the
   * main thread has received in all (a count that wraps at 2^32).
   */
  constructor(send: (bytes: Uint8Array, missedBytes: number) => void, messagesTaken: () => number) {
    this.#send = send;
    this.#messagesTaken = messagesTaken;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** Whether the next message has to wait, because too many are under way. */
  get isHeldBack(): boolean {
    return countBetween(this.#messagesTaken(), this.#messagesSent) >= MAX_MESSAGES_UNDER_WAY;
  }

  write(bytes: Uint8Array): void {
    this.#keep(bytes);
    const afterLastLine = bytes.length - 1 - bytes.lastIndexOf(NEWLINE);
    if (afterLastLine < bytes.length) this.#sendFirst(this.#length - afterLastLine);
    else if (this.#length >= GATHERED_BYTES) this.flush();
  }

  /** Sends everything that may be sent now. */
  flush(): void {
    this.#sendFirst(this.#length);
  }

  /** Sends everything, however many messages are under way. For a guest that writes no more: paused or ended. */
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
    // An empty ring begins again at 0, so that the output of a quiet guest uses only a few pages of memory.
    this.#start = this.#length === 0 ? 0 : (this.#start + bytes) % MAX_KEPT_BYTES;
  }

  #sendFirst(bytes: number): void {
    for (let left = bytes; left > 0 && !this.isHeldBack; ) left -= this.#sendPiece(left);
  }

  /** Sends one message of at most `bytes`. Returns its length. */
  #sendPiece(bytes: number): number {
    const length = Math.min(bytes, LARGEST_MESSAGE_BYTES, MAX_KEPT_BYTES - this.#start);
    this.#send(this.#ring.slice(this.#start, this.#start + length), this.#missedBytes);
    this.#missedBytes = 0;
    this.#messagesSent = (this.#messagesSent + 1) >>> 0;
    this.#forget(length);
    return length;
  }
}
