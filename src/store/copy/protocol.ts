/**
 * The wire protocol of a copy (docs/copy.md, "The protocol"): the types of messages, what each may have, how each is
 * written and read, and which versions talk to each other.
 *
 * Invariants: nothing here does I/O or remembers anything. What is decoded was checked as far as one message tells;
 * whether it fits what came before is checked by the end that receives it.
 */
import { ERROR_CODES, type ErrorCode, LivesnapError } from '../../errors.js';
import { BLOCK_PAGES, FRAME_CHUNKS, PAGE_BYTES, SHA256_BYTES } from '../format.js';
import { LOOKS_LIKE_ID, SNAPSHOT_ID, TAG_LABEL } from '../layout.js';
import {
  isDescribable,
  MAX_DESCRIPTION_BYTES,
  MAX_PACK_TOTAL,
  MAX_STATE_BYTES,
  pagesOf,
  requireDescription,
  type SnapshotDescription,
} from '../snapshot-file.js';

/** Both sides must have the same. It changes with the meaning of any message. */
export const PROTOCOL_VERSION = 1;

/** The types of messages; docs/copy.md says who sends each, and when. */
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

/** 256 GiB of distinct pages in one snapshot. */
export const MAX_CHUNKS = 1 << 26;
/** What one message carries: identities, pages, blocks, pairs of a layout. */
export const CHUNKS_PER_MESSAGE = 4096;
export const PAGES_PER_MESSAGE = FRAME_CHUNKS;
export const BLOCKS_PER_MESSAGE = 32;
export const LAYOUT_PER_MESSAGE = 16384;

const HELLO_BYTES = 12;
const HELLO_MAGIC = 'LIVESNAP';
const FINGERPRINT_BYTES = 8;
const IDENTITY_BYTES = FINGERPRINT_BYTES + SHA256_BYTES;
/** A description and a tag. */
const MAX_OFFER_JSON_BYTES = MAX_DESCRIPTION_BYTES + 1024;
/** Before the numbers of pages: flags, count, 0. */
const PAGES_HEADER_BYTES = 4;
/** A bit a page of a block. */
const BLOCK_BITS_BYTES = BLOCK_PAGES / 8;
/** The number of one chunk, at least: no block is all zeros. */
const MIN_BLOCK_BYTES = BLOCK_BITS_BYTES + 4;
const MAX_BLOCK_BYTES = BLOCK_BITS_BYTES + 4 * BLOCK_PAGES;

/** No message of a type is longer. */
const MAX_BYTES: Record<MessageType, number> = {
  [MessageType.hello]: HELLO_BYTES,
  [MessageType.request]: 1 << 20, // a reference is a word of a command line
  [MessageType.offer]: 4 + MAX_OFFER_JSON_BYTES + MAX_STATE_BYTES,
  [MessageType.have]: 1,
  [MessageType.chunks]: CHUNKS_PER_MESSAGE * IDENTITY_BYTES,
  [MessageType.offered]: 0,
  [MessageType.need]: MAX_CHUNKS / 8,
  [MessageType.pages]: PAGES_HEADER_BYTES + PAGES_PER_MESSAGE * (4 + PAGE_BYTES),
  [MessageType.sent]: 0,
  [MessageType.blocks]: BLOCKS_PER_MESSAGE * MAX_BLOCK_BYTES,
  [MessageType.layout]: 4 + LAYOUT_PER_MESSAGE * 8,
  [MessageType.placed]: 0,
  [MessageType.done]: 1,
  [MessageType.error]: 64 << 10,
};

export const remoteFailed = (why: string, cause?: unknown): LivesnapError =>
  new LivesnapError('REMOTE_FAILED', `the other side of the copy ${why}`, {
    hint: 'What has arrived is kept: begin the copy again.',
    cause,
  });

/** Errors: REMOTE_FAILED. */
export function requireLength(type: MessageType, bytes: number): void {
  if (bytes > MAX_BYTES[type]) throw remoteFailed(`sends a message of type ${type} that is too long`);
}

// Messages on a stream

export const HEADER_BYTES = 8;

export function encodeHeader(type: MessageType, bytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(bytes);
  header[4] = type;
  return header;
}

/** The type of the message that follows, and its length. Errors: REMOTE_FAILED. */
export function decodeHeader(header: Buffer): { type: MessageType; length: number } {
  const type = header[4] as MessageType;
  if (type < MessageType.hello || type > MessageType.error || header.readUIntLE(5, 3) !== 0)
    throw remoteFailed('does not speak as a livesnap does');
  const length = header.readUInt32LE(0);
  requireLength(type, length);
  return { type, length };
}

// hello

export function encodeHello(): Buffer {
  const hello = Buffer.alloc(HELLO_BYTES);
  hello.write(HELLO_MAGIC, 'latin1');
  hello.writeUInt32LE(PROTOCOL_VERSION, 8);
  return hello;
}

/** Errors: REMOTE_FAILED when the other side is no livesnap, or copies by another version. */
export function requireHello(bytes: Buffer): void {
  if (bytes.length !== HELLO_BYTES || bytes.toString('latin1', 0, 8) !== HELLO_MAGIC)
    throw remoteFailed('does not speak as a livesnap does');
  const version = bytes.readUInt32LE(8);
  if (version !== PROTOCOL_VERSION)
    throw new LivesnapError(
      'REMOTE_FAILED',
      `the livesnap on the other side copies by version ${version}, this one by version ${PROTOCOL_VERSION}`,
      { hint: 'Use the same livesnap on both sides.' },
    );
}

// request

/** What the asking side wants next. */
export type SessionRequest =
  | { readonly verb: 'send'; readonly ref: string }
  | { readonly verb: 'receive' }
  | { readonly verb: 'end' };

export const encodeRequest = (request: SessionRequest): Buffer => Buffer.from(JSON.stringify(request));

/** Errors: REMOTE_FAILED. */
export function decodeRequest(bytes: Buffer): SessionRequest {
  const { verb, ref } = (parseJson(bytes.toString('utf8')) ?? {}) as { verb?: unknown; ref?: unknown };
  if (verb === 'send' && typeof ref === 'string') return { verb, ref };
  if (verb === 'receive' || verb === 'end') return { verb };
  throw remoteFailed('asks for something that there is not');
}

/** Any value; null where it is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// offer

export interface SnapshotOffer {
  readonly description: SnapshotDescription;
  readonly tag: string | null;
  readonly state: Uint8Array;
}

export function encodeOffer({ description, tag, state }: SnapshotOffer): Uint8Array[] {
  const json = Buffer.from(JSON.stringify({ description, tag }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return [length, json, state];
}

/** Errors: REMOTE_FAILED. */
export function decodeOffer(bytes: Buffer): SnapshotOffer {
  const length = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  const state = bytes.subarray(4 + length);
  if (4 + length > bytes.length || length > MAX_OFFER_JSON_BYTES || state.length > MAX_STATE_BYTES)
    throw remoteFailed('offers a snapshot of a length that cannot be');
  const offer = parseJson(bytes.toString('utf8', 4, 4 + length)) as Record<string, unknown> | null;
  const { description, tag } = (offer ?? {}) as { description?: { id?: unknown }; tag?: unknown };
  if (typeof description?.id !== 'string' || !SNAPSHOT_ID.test(description.id))
    throw remoteFailed('offers a snapshot without an id');
  const mayBe = typeof tag === 'string' && (TAG_LABEL.test(tag) || LOOKS_LIKE_ID.test(tag));
  if (tag !== null && !mayBe) throw remoteFailed('offers a tag that cannot be');
  let described: SnapshotDescription;
  try {
    described = requireDescription('the offer', description, description.id);
  } catch (error) {
    throw remoteFailed('offers a snapshot that does not make sense', error);
  }
  if (!isDescribable(longest(described)))
    throw remoteFailed('offers a snapshot whose description is too long');
  return { description: described, tag, state };
}

/** What is counted here and not believed takes as many digits as it can. */
const longest = (description: SnapshotDescription): SnapshotDescription => ({
  ...description,
  packBytes: MAX_PACK_TOTAL,
  regions: description.regions.map((region) => ({ ...region, nonZeroPages: pagesOf(region.sizeBytes) })),
});

// have, done: one truth value

export const encodeFlag = (flag: boolean): Uint8Array => Uint8Array.of(flag ? 1 : 0);

export const decodeFlag = (bytes: Buffer): boolean => bytes[0] === 1;

// chunks

/** The identities of one message, as they are put together. */
export class IdentityList {
  readonly #bytes = new Uint8Array(CHUNKS_PER_MESSAGE * IDENTITY_BYTES);
  #filled = 0;

  get isEmpty(): boolean {
    return this.#filled === 0;
  }

  get isFull(): boolean {
    return this.#filled === this.#bytes.length;
  }

  push(fingerprint: Uint8Array, digest: Uint8Array): void {
    this.#bytes.set(fingerprint, this.#filled);
    this.#bytes.set(digest, this.#filled + FINGERPRINT_BYTES);
    this.#filled += IDENTITY_BYTES;
  }

  /** What the message carries; the list is empty afterwards. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.#filled);
    this.#filled = 0;
    return bytes;
  }
}

export interface Identities {
  readonly count: number;
  readonly fingerprints: Uint8Array;
  readonly digests: Uint8Array;
}

/** Errors: REMOTE_FAILED. */
export function decodeChunks(bytes: Buffer): Identities {
  const count = bytes.length / IDENTITY_BYTES;
  if (!Number.isInteger(count) || count < 1 || count > CHUNKS_PER_MESSAGE)
    throw remoteFailed('offers more chunks than may be');
  const fingerprints = new Uint8Array(FINGERPRINT_BYTES * count);
  const digests = new Uint8Array(SHA256_BYTES * count);
  for (let i = 0; i < count; i++) {
    const at = i * IDENTITY_BYTES;
    fingerprints.set(bytes.subarray(at, at + FINGERPRINT_BYTES), FINGERPRINT_BYTES * i);
    digests.set(bytes.subarray(at + FINGERPRINT_BYTES, at + IDENTITY_BYTES), SHA256_BYTES * i);
  }
  return { count, fingerprints, digests };
}

// need: a bit a chunk

export const isSet = (bits: Uint8Array, i: number): boolean => (bits[i >>> 3]! & (1 << (i & 7))) !== 0;

/** Errors: REMOTE_FAILED. */
export function decodeNeed(bytes: Buffer, chunks: number): Uint8Array {
  if (bytes.length !== Math.ceil(chunks / 8)) throw remoteFailed('asked for chunks that were not offered');
  return bytes;
}

// pages

export interface PageMessage {
  /** The payload is an LZ4 block. */
  readonly isCompressed: boolean;
  /** The number of the chunk of each page. */
  readonly numbers: ArrayLike<number>;
  readonly payload: Uint8Array;
}

export const encodePages = ({ isCompressed, numbers, payload }: PageMessage): Uint8Array[] => [
  Uint8Array.of(isCompressed ? 1 : 0, numbers.length, 0, 0),
  bytesOf(Uint32Array.from(numbers)),
  payload,
];

/** Errors: REMOTE_FAILED. */
export function decodePages(bytes: Buffer): PageMessage & { readonly payload: Buffer } {
  const [flags = 0, count = 0] = bytes;
  const payloadAt = PAGES_HEADER_BYTES + 4 * count;
  if (count < 1 || count > PAGES_PER_MESSAGE || bytes.length < payloadAt || flags > 1)
    throw remoteFailed('sends pages that cannot be');
  return {
    isCompressed: flags === 1,
    numbers: wordsOf(bytes.subarray(PAGES_HEADER_BYTES, payloadAt)),
    payload: bytes.subarray(payloadAt),
  };
}

// blocks

/** In the place of a chunk's number: the page is zero. No chunk has that number. */
export const ZERO_PAGE = 0xffffffff;

/** A block: the number of the chunk of each of its pages, or {@link ZERO_PAGE}. */
export function encodeBlock(pages: Uint32Array): [Uint8Array, Uint8Array] {
  const bits = new Uint8Array(BLOCK_BITS_BYTES);
  for (let page = 0; page < BLOCK_PAGES; page++)
    if (pages[page] !== ZERO_PAGE) bits[page >>> 3]! |= 1 << (page & 7);
  return [bits, bytesOf(pages.filter((number) => number !== ZERO_PAGE))];
}

/** The blocks of a message; each array is good until the next. Errors: REMOTE_FAILED. */
export function* decodeBlocks(bytes: Buffer): Generator<Uint32Array> {
  const pages = new Uint32Array(BLOCK_PAGES);
  let blocks = 0;
  for (let from = 0; from < bytes.length; blocks++) {
    if (blocks === BLOCKS_PER_MESSAGE) throw remoteFailed('offers more blocks than may be');
    if (bytes.length - from < MIN_BLOCK_BYTES) throw remoteFailed('offers a block that is cut');
    let at = from + BLOCK_BITS_BYTES;
    for (let page = 0; page < BLOCK_PAGES; page++) {
      pages[page] = ZERO_PAGE;
      if ((bytes[from + (page >>> 3)]! & (1 << (page & 7))) === 0) continue;
      if (at + 4 > bytes.length) throw remoteFailed('offers a block that is cut');
      pages[page] = bytes.readUInt32LE(at);
      if (pages[page] === ZERO_PAGE) throw remoteFailed('offers pages that cannot be');
      at += 4;
    }
    if (at === from + BLOCK_BITS_BYTES) throw remoteFailed('offers a block of zeros, which is never stored');
    yield pages;
    from = at;
  }
}

// layout

/** Where blocks stand in a region: pairs of a block of the region, and the number of a block that was sent. */
export interface LayoutMessage {
  readonly region: number;
  readonly pairs: ArrayLike<number>;
}

export const encodeLayout = ({ region, pairs }: LayoutMessage): Uint8Array =>
  bytesOf(Uint32Array.from([region, ...Array.from(pairs)]));

/** Errors: REMOTE_FAILED. */
export function decodeLayout(bytes: Buffer): LayoutMessage {
  if (bytes.length % 8 !== 4 || bytes.length > 4 + 8 * LAYOUT_PER_MESSAGE)
    throw remoteFailed('offers pages that cannot be');
  const [region, ...pairs] = wordsOf(bytes) as unknown as [number, ...number[]];
  return { region, pairs };
}

const bytesOf = (words: Uint32Array): Uint8Array =>
  new Uint8Array(words.buffer, words.byteOffset, words.byteLength);

const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(new Uint8Array(bytes).buffer);

// error

/** Of what the other side says no more is taken, and no more told, than a person reads. */
const MAX_WORDS = 1000;

const readable = (words: string): string =>
  words.length > MAX_WORDS ? `${words.slice(0, MAX_WORDS)}…` : words;

export function encodeError(error: unknown): Buffer {
  const known =
    error instanceof LivesnapError
      ? error
      : new LivesnapError('SYSTEM', `internal error: ${(error as Error)?.message ?? error}`);
  const { code, message, hint } = known.toJSON();
  const told = { code, message: readable(message), hint: hint === null ? null : readable(hint) };
  return Buffer.from(JSON.stringify(told));
}

/** The error that the other side tells of, which may be anything. */
export function decodeError(bytes: Buffer): LivesnapError {
  const told = parseJson(bytes.toString('utf8')) as Record<string, unknown> | null;
  const { code, message, hint } = told ?? {};
  return new LivesnapError(
    typeof code === 'string' && Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'REMOTE_FAILED',
    `on the other side: ${typeof message === 'string' ? readable(message) : 'it failed'}`,
    typeof hint === 'string' ? { hint: readable(hint) } : {},
  );
}
