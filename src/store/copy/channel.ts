/**
 * Channels carry messages (protocol.ts) between the two ends of a copy: over a pair of streams, or within one process.
 *
 * Invariants:
 * - The type and length in a header are checked before the message is read.
 * - Memory grows with the bytes that have arrived, not with the length in the header.
 */
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LivesnapError } from '../../errors.js';
import {
  decodeError,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  MessageType,
  protocolError,
  remoteFailed,
  requireLength,
} from './protocol.js';

/** Allocated for a message before its bytes arrive. Most messages fit. */
const INITIAL_BYTES = 128 << 10;

const CLOSED_EARLY = 'closed the connection before the copy ended';

export interface Message {
  readonly type: MessageType;
  readonly bytes: Buffer;
}

export interface Channel {
  /** Resolves when there is room for the next message. Errors: REMOTE_FAILED, or the error that the peer sent. */
  send(type: MessageType, ...parts: Uint8Array[]): Promise<void>;
  /** The next message, which must be of one of these types. One call at a time. Errors: as for {@link send}. */
  receive(...types: MessageType[]): Promise<Message>;
  close(): void;
}

/** How long to wait for a peer or a child process that has failed or finished. */
const GRACE_MS = 3000;

/** The result of `work`, or `otherwise` after {@link GRACE_MS}. */
export async function withTimeout<T, U>(work: Promise<T>, otherwise: U): Promise<T | U> {
  const timer = new AbortController();
  try {
    return await Promise.race([work, sleep(GRACE_MS, otherwise, { signal: timer.signal })]);
  } finally {
    timer.abort();
  }
}

/** Throws an error message of the peer, and refuses other types than `types`. */
function requireType(message: Message, types: readonly MessageType[]): Message {
  requireLength(message.type, message.bytes.length);
  if (message.type === MessageType.error) throw decodeError(message.bytes);
  if (!types.includes(message.type)) throw protocolError(`sent an unexpected message (type ${message.type})`);
  return message;
}

/**
 * The error for a failed send. A peer that fails sends its error before it closes, so that one is preferred. `next`
 * gives the messages that have arrived and were not received yet.
 */
function sendError(next: () => Promise<Message>, cause?: unknown): Promise<LivesnapError> {
  const closed = remoteFailed('closed the connection', cause);
  const firstError = async (): Promise<LivesnapError> => {
    try {
      for (;;) {
        const message = await next();
        if (message.type === MessageType.error) return decodeError(message.bytes);
      }
    } catch {
      return closed;
    }
  };
  return withTimeout(firstError(), closed);
}

/** Messages over a pair of streams. */
export class StreamChannel implements Channel {
  readonly #input: AsyncIterator<Buffer>;
  /** The unread end of the last piece. */
  #rest: Buffer = Buffer.alloc(0);
  #writeError: Error | null = null;
  #sendError: Promise<LivesnapError> | null = null;

  constructor(
    readonly input: Readable,
    readonly output: Writable,
  ) {
    this.#input = input[Symbol.asyncIterator]();
    output.on('error', (error) => {
      this.#writeError = error;
    });
  }

  async send(type: MessageType, ...parts: Uint8Array[]): Promise<void> {
    if (this.#writeError || this.output.destroyed || this.output.writableEnded)
      throw await this.#whySendFailed();
    const header = encodeHeader(
      type,
      parts.reduce((total, part) => total + part.length, 0),
    );
    this.output.cork();
    // A copy, because the stream may write it after the caller has reused its buffers.
    const hasRoom = this.output.write(Buffer.concat([header, ...parts]));
    this.output.uncork();
    if (!hasRoom)
      await new Promise<void>((resolve) => {
        const settle = (): void => {
          this.output.off('drain', settle).off('close', settle).off('error', settle);
          resolve();
        };
        this.output.on('drain', settle).on('close', settle).on('error', settle);
      });
    if (this.#writeError) throw await this.#whySendFailed();
  }

  #whySendFailed(): Promise<LivesnapError> {
    this.#sendError ??= sendError(() => this.#next(), this.#writeError ?? undefined);
    return this.#sendError;
  }

  async #piece(): Promise<Buffer> {
    let next: IteratorResult<Buffer>;
    try {
      next = await this.#input.next();
    } catch (error) {
      throw remoteFailed(CLOSED_EARLY, error);
    }
    if (next.done) throw remoteFailed(CLOSED_EARLY);
    return next.value;
  }

  /** Copies the bytes of pieces, and keeps none: a piece of one byte may hold a large buffer. */
  async #read(length: number): Promise<Buffer> {
    const start = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(start.length);
    if (start.length === length) return start;
    let bytes = Buffer.alloc(Math.min(length, Math.max(INITIAL_BYTES, start.length)));
    let filled = start.copy(bytes);
    while (filled < length) {
      const piece = await this.#piece();
      const part = piece.subarray(0, length - filled);
      if (filled + part.length > bytes.length) {
        // At most twice what has arrived.
        const grown = Buffer.alloc(Math.min(length, 2 * (filled + part.length)));
        bytes.copy(grown, 0, 0, filled);
        bytes = grown;
      }
      filled += part.copy(bytes, filled);
      this.#rest = piece.subarray(part.length);
    }
    return bytes;
  }

  async #next(): Promise<Message> {
    const { type, length } = decodeHeader(await this.#read(HEADER_BYTES));
    return { type, bytes: await this.#read(length) };
  }

  async receive(...types: MessageType[]): Promise<Message> {
    return requireType(await this.#next(), types);
  }

  close(): void {
    this.output.end();
    this.input.destroy();
  }
}

/** The most messages that wait in a queue; a sender waits for room. */
const MAX_QUEUED = 8;

/** Messages from one end to the other within the process. */
class Queue {
  readonly #messages: Message[] = [];
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  #wake(): void {
    for (const resume of this.#waiting.splice(0)) resume();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves to true when there is room for the next message, to false when the queue is closed. */
  async put(message: Message): Promise<boolean> {
    if (this.#closed) return false;
    this.#messages.push(message);
    this.#wake();
    while (this.#messages.length >= MAX_QUEUED) {
      if (this.#closed) return false;
      await this.#change();
    }
    return true;
  }

  async take(): Promise<Message> {
    for (;;) {
      const message = this.#messages.shift();
      if (message) {
        this.#wake();
        return message;
      }
      if (this.#closed) throw remoteFailed(CLOSED_EARLY);
      await this.#change();
    }
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }
}

class LocalChannel implements Channel {
  constructor(
    readonly incoming: Queue,
    readonly outgoing: Queue,
  ) {}

  async send(type: MessageType, ...parts: Uint8Array[]): Promise<void> {
    if (await this.outgoing.put({ type, bytes: Buffer.concat(parts) })) return;
    throw await sendError(() => this.incoming.take());
  }

  async receive(...types: MessageType[]): Promise<Message> {
    return requireType(await this.incoming.take(), types);
  }

  close(): void {
    this.incoming.close();
    this.outgoing.close();
  }
}

/** Two connected ends within this process. */
export function localChannels(): [Channel, Channel] {
  const forth = new Queue();
  const back = new Queue();
  return [new LocalChannel(back, forth), new LocalChannel(forth, back)];
}
