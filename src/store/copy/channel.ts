/**
 * How messages (protocol.ts) go between the two ends of a copy: over a pair of streams, or within the process.
 *
 * Invariant: what the other side says of lengths and types is checked before anything is allocated or believed.
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
  remoteFailed,
  requireLength,
} from './protocol.js';

/** Room for so many bytes of a message is made before they come; most messages have no more. */
const FIRST_BYTES = 128 << 10;

export interface Message {
  readonly type: MessageType;
  readonly bytes: Buffer;
}

export interface Channel {
  /** Resolves when there is room for more. Errors: REMOTE_FAILED, or what the other side failed with. */
  send(type: MessageType, ...parts: Uint8Array[]): Promise<void>;
  /** The next message, of one of these types; one call at a time. Errors: as of {@link send}. */
  receive(...types: MessageType[]): Promise<Message>;
  close(): void;
}

/** How long a side that has failed, or is done, is waited for. */
const PATIENCE_MS = 3000;

/** What `work` comes to; `otherwise` when it takes long. */
export async function withTimeout<T, U>(work: Promise<T>, otherwise: U): Promise<T | U> {
  const over = new AbortController();
  try {
    return await Promise.race([work, sleep(PATIENCE_MS, otherwise, { signal: over.signal })]);
  } finally {
    over.abort();
  }
}

/** What was received, if it is of a type that is expected now; an error of the other side is thrown here. */
function expected(message: Message, types: readonly MessageType[]): Message {
  requireLength(message.type, message.bytes.length);
  if (message.type === MessageType.error) throw decodeError(message.bytes);
  if (!types.includes(message.type)) throw remoteFailed(`sent a message of type ${message.type} out of turn`);
  return message;
}

/**
 * Why nothing can be sent any more: what the other side failed with, if it said so before it went. `next` gives what
 * has come from there and was not received yet.
 */
function whyGone(next: () => Promise<Message>, cause?: unknown): Promise<LivesnapError> {
  const gone = remoteFailed('has gone', cause);
  const hear = async (): Promise<LivesnapError> => {
    try {
      for (;;) {
        const message = await next();
        if (message.type === MessageType.error) return decodeError(message.bytes);
      }
    } catch {
      return gone;
    }
  };
  return withTimeout(hear(), gone);
}

/** Messages on streams. */
export class StreamChannel implements Channel {
  readonly #input: AsyncIterator<Buffer>;
  /** What of the last piece has not been read yet. */
  #rest: Buffer = Buffer.alloc(0);
  #writeError: Error | null = null;
  #gone: Promise<LivesnapError> | null = null;

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
    if (this.#writeError || this.output.destroyed || this.output.writableEnded) throw await this.#whyGone();
    const header = encodeHeader(
      type,
      parts.reduce((total, part) => total + part.length, 0),
    );
    this.output.cork();
    // Written later, perhaps: the caller may use its memory again meanwhile.
    const goesOn = this.output.write(Buffer.concat([header, ...parts]));
    this.output.uncork();
    if (!goesOn)
      await new Promise<void>((resolve) => {
        const go = (): void => {
          this.output.off('drain', go).off('close', go).off('error', go);
          resolve();
        };
        this.output.on('drain', go).on('close', go).on('error', go);
      });
    if (this.#writeError) throw await this.#whyGone();
  }

  #whyGone(): Promise<LivesnapError> {
    this.#gone ??= whyGone(() => this.#next(), this.#writeError ?? undefined);
    return this.#gone;
  }

  /** The next piece of the stream. */
  async #piece(): Promise<Buffer> {
    let next: IteratorResult<Buffer>;
    try {
      next = await this.#input.next();
    } catch (error) {
      throw remoteFailed('has broken off', error);
    }
    if (next.done) throw remoteFailed('has broken off');
    return next.value;
  }

  /** Pieces may be of one byte and hold far more memory each, so that their bytes are copied, and they are not kept. */
  async #read(length: number): Promise<Buffer> {
    const begun = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(begun.length);
    if (begun.length === length) return begun;
    let bytes = Buffer.alloc(Math.min(length, Math.max(FIRST_BYTES, begun.length)));
    let filled = begun.copy(bytes);
    while (filled < length) {
      const piece = await this.#piece();
      const part = piece.subarray(0, length - filled);
      if (filled + part.length > bytes.length) {
        // No more than twice what has come, whatever length is announced.
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
    return expected(await this.#next(), types);
  }

  close(): void {
    this.output.end();
    this.input.destroy();
  }
}

/** Messages that wait to be received. */
class Queue {
  readonly #messages: Message[] = [];
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  get isLong(): boolean {
    return this.#messages.length >= 8;
  }

  #wake(): void {
    for (const go of this.#waiting.splice(0)) go();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when there is room for more; to false when there will be none. */
  async put(message: Message): Promise<boolean> {
    if (this.#closed) return false;
    this.#messages.push(message);
    this.#wake();
    while (this.isLong) {
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
      if (this.#closed) throw remoteFailed('has broken off');
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
    throw await whyGone(() => this.incoming.take());
  }

  async receive(...types: MessageType[]): Promise<Message> {
    return expected(await this.incoming.take(), types);
  }

  close(): void {
    this.incoming.close();
    this.outgoing.close();
  }
}

/** Two ends within this process. */
export function localChannels(): [Channel, Channel] {
  const there = new Queue();
  const back = new Queue();
  return [new LocalChannel(there, back), new LocalChannel(back, there)];
}
