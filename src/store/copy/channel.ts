/**
 * How the two ends of a copy talk: messages of a type and some bytes (docs/copy.md), over a pair of streams or within
 * the process.
 *
 * Invariant: what the other side says of lengths and types is checked before anything is allocated or believed.
 */
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { ERROR_CODES, type ErrorCode, LivesnapError, type PlainError } from '../../errors.js';

/** The types of messages; docs/copy.md says what each carries. */
export const MessageType = {
  hello: 1,
  request: 2,
  offer: 3,
  have: 4,
  chunks: 5,
  offered: 6,
  need: 7,
  pages: 8,
  sent: 9,
  blocks: 10,
  layout: 11,
  placed: 12,
  done: 13,
  error: 14,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

const HEADER_BYTES = 8;

/** No message of a type is longer; docs/copy.md says what is in it. */
const MAX_BYTES: Record<MessageType, number> = {
  [MessageType.hello]: 12,
  [MessageType.request]: 1 << 20, // a reference is a word of a command line
  [MessageType.offer]: 66 << 20, // a machine's state may have 64 MiB
  [MessageType.have]: 1,
  [MessageType.chunks]: 4096 * 40,
  [MessageType.offered]: 0,
  [MessageType.need]: 1 << 23, // of 2^26 chunks
  [MessageType.pages]: 4 + 16 * (4 + 4096),
  [MessageType.sent]: 0,
  [MessageType.blocks]: 32 * (64 + 4 * 512),
  [MessageType.layout]: 4 + 8 * 16_384,
  [MessageType.placed]: 0,
  [MessageType.done]: 1,
  [MessageType.error]: 64 << 10,
};
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

export const remoteFailed = (why: string, cause?: unknown): LivesnapError =>
  new LivesnapError('REMOTE_FAILED', `the other side of the copy ${why}`, {
    hint: 'What has arrived is kept: begin the copy again.',
    cause,
  });

/** How long a side that has failed, or is done, is waited for. */
const PATIENCE_MS = 3000;

/** What `work` comes to; `otherwise` when it takes long. */
export async function soon<T, U>(work: Promise<T>, otherwise: U): Promise<T | U> {
  const over = new AbortController();
  try {
    return await Promise.race([work, sleep(PATIENCE_MS, otherwise, { signal: over.signal })]);
  } finally {
    over.abort();
  }
}

/** What the other side says, as far as a person reads it. */
const MAX_WORDS = 1000;
export const readable = (words: string): string =>
  words.length > MAX_WORDS ? `${words.slice(0, MAX_WORDS)}…` : words;

/** An error as the other side tells it, which may be anything. */
function plainError(bytes: Buffer): PlainError {
  let told: { code?: unknown; message?: unknown; hint?: unknown } | null = null;
  try {
    told = JSON.parse(bytes.toString('utf8'));
  } catch {
    // an error all the same
  }
  const { code, message, hint } = told ?? {};
  return {
    code:
      typeof code === 'string' && Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'REMOTE_FAILED',
    message: typeof message === 'string' ? readable(message) : 'it failed',
    hint: typeof hint === 'string' ? readable(hint) : null,
  };
}

function errorOfOtherSide({ bytes }: Message): LivesnapError {
  const { code, message, hint } = plainError(bytes);
  return new LivesnapError(code, `on the other side: ${message}`, hint === null ? {} : { hint });
}

function requireLength(type: MessageType, bytes: number): void {
  if (bytes > MAX_BYTES[type]) throw remoteFailed(`sends a message of type ${type} that is too long`);
}

/** What was received, if it is of a type that is expected now; an error of the other side is thrown here. */
function expected(message: Message, types: readonly MessageType[]): Message {
  requireLength(message.type, message.bytes.length);
  if (message.type === MessageType.error) throw errorOfOtherSide(message);
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
        if (message.type === MessageType.error) return errorOfOtherSide(message);
      }
    } catch {
      return gone;
    }
  };
  return soon(hear(), gone);
}

/** Messages on streams: u32 length, u8 type, three bytes of 0, the bytes. */
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
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(parts.reduce((total, part) => total + part.length, 0));
    header[4] = type;
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
    const header = await this.#read(HEADER_BYTES);
    const length = header.readUInt32LE(0);
    const type = header[4] as MessageType;
    if (type < 1 || type > MessageType.error || header.readUIntLE(5, 3) !== 0)
      throw remoteFailed('does not speak as a livesnap does');
    requireLength(type, length);
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
