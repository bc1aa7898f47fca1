/**
 * The wire protocol of a copy (docs/copy.md, "The protocol"): message types, limits, encoding, decoding, versions.
 *
 * Invariants:
 * - Nothing here does I/O or keeps state between messages.
 * - A decoded message is valid by itself. The end that receives it checks that it fits the messages before it.
 */

import assert from 'node:assert/strict';
import { type Damage, ERROR_CODES, type ErrorCode, LivesnapError } from '../../errors.js';
import { PAGE_BYTES } from '../../page-stream.js';
import {
  type Check,
  integer,
  isRecord,
  list,
  nullable,
  object,
  oneOf,
  optional,
  parse,
  passes,
  satisfying,
  text,
} from '../../schema.js';
import { LOOKS_LIKE_ID, SNAPSHOT_ID, TAG_LABEL } from '../disk/layout.js';
import { DIGEST_BYTES, DIGESTS } from '../pack/digest.js';
import { FRAME_CHUNKS } from '../pack/pack-format.js';
import { BLOCK_PAGES } from '../snapshot/block-list.js';
import {
  isDescribable,
  MAX_DESCRIPTION_BYTES,
  MAX_PACK_TOTAL,
  pagesOf,
  regionName,
  requireDescription,
  type SnapshotDescription,
} from '../snapshot/description.js';
import { MAX_STATE_BYTES } from '../snapshot/snapshot-file.js';
import { MAX_TAGS } from '../tags.js';

/**
 * Both ends must use the same version. It changes when the meaning of any message changes. A message that is only sent
 * to a peer that asked for it needs no new version: an earlier livesnap refuses the request.
 */
const PROTOCOL_VERSION = 2;

/** docs/copy.md says which end sends each type, and when. */
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
  snapshots: 15,
  listed: 16,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

/** Distinct chunks of one snapshot: 256 GiB of pages. */
export const MAX_CHUNKS = 1 << 26;
const CHUNKS_PER_MESSAGE = 4096;
export const PAGES_PER_MESSAGE = FRAME_CHUNKS;
export const BLOCKS_PER_MESSAGE = 32;
/** Pairs of a layout message. */
export const LAYOUT_PER_MESSAGE = 16384;

const HELLO_BYTES = 12;
const HELLO_MAGIC = 'LIVESNAP';
const FINGERPRINT_BYTES = 8;
const IDENTITY_BYTES = FINGERPRINT_BYTES + DIGEST_BYTES;
/** The ID of the digests; the identities follow. */
const CHUNKS_HEADER_BYTES = 4;
/** A label of 64 characters, quotes and a comma. */
const MAX_TAG_JSON_BYTES = 67;
/** A description and tags. */
const MAX_OFFER_JSON_BYTES = MAX_DESCRIPTION_BYTES + MAX_TAGS * MAX_TAG_JSON_BYTES + 1024;
/** Flags, count and two zeros; the chunk numbers follow. */
const PAGES_HEADER_BYTES = 4;
/** One bit per page of a block. */
const BLOCK_BITS_BYTES = BLOCK_PAGES / 8;
/** A block has at least one page that is not zero. */
const MIN_BLOCK_BYTES = BLOCK_BITS_BYTES + 4;
const MAX_BLOCK_BYTES = BLOCK_BITS_BYTES + 4 * BLOCK_PAGES;

const MAX_BYTES: Record<MessageType, number> = {
  [MessageType.hello]: HELLO_BYTES,
  [MessageType.request]: 1 << 20, // a reference is a word of a command line
  [MessageType.offer]: 4 + MAX_OFFER_JSON_BYTES + MAX_STATE_BYTES,
  [MessageType.have]: 1,
  [MessageType.chunks]: CHUNKS_HEADER_BYTES + CHUNKS_PER_MESSAGE * IDENTITY_BYTES,
  [MessageType.offered]: 0,
  [MessageType.need]: MAX_CHUNKS / 8,
  [MessageType.pages]: PAGES_HEADER_BYTES + PAGES_PER_MESSAGE * (4 + PAGE_BYTES),
  [MessageType.sent]: 0,
  [MessageType.blocks]: BLOCKS_PER_MESSAGE * MAX_BLOCK_BYTES,
  [MessageType.layout]: 4 + LAYOUT_PER_MESSAGE * 8,
  [MessageType.placed]: 0,
  [MessageType.done]: 1 + MAX_TAGS / 8,
  [MessageType.error]: 64 << 10,
  [MessageType.snapshots]: MAX_OFFER_JSON_BYTES, // what is listed of a snapshot is also in its offer
  [MessageType.listed]: 0,
};

// Failures of the peer. People read them at the end that they started, where the peer is "the remote".

export const RESUME_HINT = 'Run the copy again; it resumes where it stopped.';

/** The connection to the peer failed. `what` completes the sentence "the remote …". */
export const remoteFailed = (what: string, cause?: unknown): LivesnapError =>
  new LivesnapError('REMOTE_FAILED', `the remote ${what}`, { hint: RESUME_HINT, cause });

/** The peer broke the protocol. `what` completes the sentence "the remote …". */
export const protocolError = (what: string, cause?: unknown): LivesnapError =>
  new LivesnapError('REMOTE_FAILED', `the remote ${what}`, {
    hint: 'Use the same livesnap version at both ends.',
    cause,
  });

const notLivesnap = (): LivesnapError =>
  new LivesnapError('REMOTE_FAILED', 'the remote does not speak the copy protocol of livesnap', {
    hint: 'The remote command must be livesnap, and its shell must print nothing to stdout.',
  });

/** Errors: REMOTE_FAILED. */
export function requireLength(type: MessageType, bytes: number): void {
  if (bytes > MAX_BYTES[type])
    throw protocolError(
      `sent a message of type ${type} with ${bytes} bytes; the limit is ${MAX_BYTES[type]}`,
    );
}

// The header of a message on a stream

export const HEADER_BYTES = 8;

export function encodeHeader(type: MessageType, bytes: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(bytes);
  header[4] = type;
  return header;
}

/** `length`: of the bytes that follow the header. Errors: REMOTE_FAILED. */
export function decodeHeader(header: Buffer): { type: MessageType; length: number } {
  const type = header[4] as MessageType;
  if (type < MessageType.hello || type > MessageType.listed || header.readUIntLE(5, 3) !== 0)
    throw notLivesnap();
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

/** Errors: REMOTE_FAILED (the peer is not livesnap, or has another protocol version). */
export function requireHello(bytes: Buffer): void {
  if (bytes.length !== HELLO_BYTES || bytes.toString('latin1', 0, 8) !== HELLO_MAGIC) throw notLivesnap();
  const version = bytes.readUInt32LE(8);
  if (version !== PROTOCOL_VERSION)
    throw protocolError(`uses copy protocol version ${version}; this livesnap uses ${PROTOCOL_VERSION}`);
}

// JSON messages: request, offer, error, and snapshots (snapshot-list.ts)

/** Any value; null where the text is not JSON. */
export function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

/** Fields that a later version may add are ignored. */
const LENIENT = { others: 'ignore' } as const;

// request

/** What the client wants next. */
export type SessionRequest =
  | { readonly verb: 'send'; readonly ref: string }
  | { readonly verb: 'receive' }
  | { readonly verb: 'list' }
  | { readonly verb: 'end' };

const sendRequest = object({ verb: oneOf('send'), ref: text() }, LENIENT);
const bareRequest = object({ verb: oneOf('receive', 'list', 'end') }, LENIENT);

export const encodeRequest = (request: SessionRequest): Buffer => Buffer.from(JSON.stringify(request));

/** Errors: REMOTE_FAILED. */
export function decodeRequest(bytes: Buffer): SessionRequest {
  const value = parseJson(bytes.toString('utf8'));
  const check: Check<SessionRequest> = isRecord(value) && value.verb === 'send' ? sendRequest : bareRequest;
  return parse(check, value, (wrong) => protocolError(`sent an invalid request: ${wrong.message}`));
}

// offer

export interface SnapshotOffer {
  readonly description: SnapshotDescription;
  readonly tags: readonly string[];
  readonly state: Uint8Array;
}

/** An offer that has arrived. */
export interface ReceivedOffer extends SnapshotOffer {
  /** False: the source is an earlier livesnap. It knows one tag of a snapshot, and `done` has only a flag for it. */
  readonly knowsTags: boolean;
}

/** A tag that looks like an ID is valid here: the destination drops it. */
const offeredTag = satisfying(
  text(),
  (tag) => TAG_LABEL.test(tag) || LOOKS_LIKE_ID.test(tag),
  'is not a tag',
);

const offerHeader = object(
  {
    description: object({ id: text(SNAPSHOT_ID, 'a snapshot ID') }, LENIENT),
    tag: optional(nullable(offeredTag)),
    tags: optional(list(offeredTag, 0, MAX_TAGS)),
  },
  LENIENT,
);

/** An earlier livesnap reads `tag`, and takes the first tag. A later one reads `tags`. */
export function encodeOffer({ description, tags, state }: SnapshotOffer): Uint8Array[] {
  const json = Buffer.from(JSON.stringify({ description, tag: tags[0] ?? null, tags }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return [length, json, state];
}

/** Errors: REMOTE_FAILED. */
export function decodeOffer(bytes: Buffer): ReceivedOffer {
  const length = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0;
  const state = bytes.subarray(4 + length);
  if (4 + length > bytes.length || length > MAX_OFFER_JSON_BYTES || state.length > MAX_STATE_BYTES)
    throw protocolError('sent an offer with an invalid length');
  const header = parse(offerHeader, parseJson(bytes.toString('utf8', 4, 4 + length)), (wrong) =>
    protocolError(`sent an invalid offer: ${wrong.message}`),
  );
  const { description: described, tag = null, tags } = header;
  let description: SnapshotDescription;
  try {
    description = requireDescription('the offer', described, described.id);
  } catch (error) {
    throw protocolError('sent an offer with an invalid description', error);
  }
  if (!isDescribable(longest(description)))
    throw protocolError('sent an offer whose description is too long for a snapshot file');
  const oneTag = tag === null ? [] : [tag];
  return { description, tags: tags ?? oneTag, state, knowsTags: tags !== undefined };
}

/** The description with the largest value of each number that the destination counts itself and writes in its place. */
const longest = (description: SnapshotDescription): SnapshotDescription => ({
  ...description,
  packBytes: MAX_PACK_TOTAL,
  regions: description.regions.map((region) => ({ ...region, nonZeroPages: pagesOf(region.sizeBytes) })),
});

// done

/** A flag, and a bit for each offered tag: 1 if the tag was left out. The flag is 1 if any was. */
export function encodeDone({ tags, knowsTags }: ReceivedOffer, skipped: ReadonlySet<string>): Uint8Array {
  const bytes = new Uint8Array(1 + (knowsTags ? Math.ceil(tags.length / 8) : 0));
  if (skipped.size > 0) bytes[0] = 1;
  if (knowsTags)
    tags.forEach((tag, i) => {
      if (skipped.has(tag)) bytes[1 + (i >>> 3)]! |= 1 << (i & 7);
    });
  return bytes;
}

/** The offered tags that were left out. An earlier livesnap answers with the flag alone. Errors: REMOTE_FAILED. */
export function decodeDone(bytes: Buffer, offered: readonly string[]): string[] {
  if (bytes.length === 1) return decodeFlag(bytes) ? [...offered] : offered.slice(1);
  if (bytes.length !== 1 + Math.ceil(offered.length / 8))
    throw protocolError(`sent ${bytes.length} bytes for ${offered.length} tags`);
  return offered.filter((_, i) => isSet(bytes.subarray(1), i));
}

// have: one flag

export const encodeFlag = (flag: boolean): Uint8Array => Uint8Array.of(flag ? 1 : 0);

export const decodeFlag = (bytes: Buffer): boolean => bytes[0] === 1;

// chunks

/** Collects the identities of one message: their digests have the same ID. */
export class IdentityList {
  readonly #bytes = Buffer.alloc(CHUNKS_HEADER_BYTES + CHUNKS_PER_MESSAGE * IDENTITY_BYTES);
  #filled = CHUNKS_HEADER_BYTES;

  get isEmpty(): boolean {
    return this.#filled === CHUNKS_HEADER_BYTES;
  }

  /** Whether an identity with a digest of this ID has to wait for the next message. */
  isFullFor(digestId: number): boolean {
    return this.#filled === this.#bytes.length || (!this.isEmpty && this.#bytes.readUInt32LE(0) !== digestId);
  }

  push(digestId: number, fingerprint: Uint8Array, digest: Uint8Array): void {
    assert(!this.isFullFor(digestId), 'the identity fits into the message');
    this.#bytes.writeUInt32LE(digestId);
    this.#bytes.set(fingerprint, this.#filled);
    this.#bytes.set(digest, this.#filled + FINGERPRINT_BYTES);
    this.#filled += IDENTITY_BYTES;
  }

  /** Empties the list. The result is valid until the next `push`. */
  take(): Uint8Array {
    const bytes = this.#bytes.subarray(0, this.#filled);
    this.#filled = CHUNKS_HEADER_BYTES;
    return bytes;
  }
}

export interface Identities {
  readonly count: number;
  /** The ID of all digests. */
  readonly digestId: number;
  readonly fingerprints: Uint8Array;
  readonly digests: Uint8Array;
}

/** Errors: REMOTE_FAILED. */
export function decodeChunks(bytes: Buffer): Identities {
  const count = (bytes.length - CHUNKS_HEADER_BYTES) / IDENTITY_BYTES;
  if (!Number.isInteger(count) || count < 1 || count > CHUNKS_PER_MESSAGE)
    throw protocolError(`sent a list of chunks with ${bytes.length} bytes`);
  const digestId = bytes.readUInt32LE(0);
  if (!DIGESTS[digestId])
    throw protocolError(`sent digests of ID ${digestId}, which this livesnap does not know`);
  const fingerprints = new Uint8Array(FINGERPRINT_BYTES * count);
  const digests = new Uint8Array(DIGEST_BYTES * count);
  for (let i = 0; i < count; i++) {
    const at = CHUNKS_HEADER_BYTES + i * IDENTITY_BYTES;
    fingerprints.set(bytes.subarray(at, at + FINGERPRINT_BYTES), FINGERPRINT_BYTES * i);
    digests.set(bytes.subarray(at + FINGERPRINT_BYTES, at + IDENTITY_BYTES), DIGEST_BYTES * i);
  }
  return { count, digestId, fingerprints, digests };
}

// need: one bit per chunk

export const isSet = (bits: Uint8Array, i: number): boolean => (bits[i >>> 3]! & (1 << (i & 7))) !== 0;

/** Errors: REMOTE_FAILED. */
export function decodeNeed(bytes: Buffer, chunks: number): Uint8Array {
  if (bytes.length !== Math.ceil(chunks / 8))
    throw protocolError(`sent ${bytes.length} bytes of bits for ${chunks} chunks`);
  return bytes;
}

// pages

export interface PageMessage {
  /** The payload is an LZ4 block. */
  readonly isCompressed: boolean;
  /** The chunk number of each page. */
  readonly numbers: ArrayLike<number>;
  readonly payload: Uint8Array;
}

export function encodePages({ isCompressed, numbers, payload }: PageMessage): Uint8Array[] {
  assert(numbers.length > 0 && numbers.length <= PAGES_PER_MESSAGE);
  return [
    Uint8Array.of(isCompressed ? 1 : 0, numbers.length, 0, 0),
    bytesOf(Uint32Array.from(numbers)),
    payload,
  ];
}

/** Errors: REMOTE_FAILED. */
export function decodePages(bytes: Buffer): PageMessage & { readonly payload: Buffer } {
  const [flags = 0, count = 0] = bytes;
  const payloadAt = PAGES_HEADER_BYTES + 4 * count;
  if (count < 1 || count > PAGES_PER_MESSAGE || bytes.length < payloadAt || flags > 1)
    throw protocolError(`sent an invalid message of ${count} pages with flags ${flags}`);
  return {
    isCompressed: flags === 1,
    numbers: wordsOf(bytes.subarray(PAGES_HEADER_BYTES, payloadAt)),
    payload: bytes.subarray(payloadAt),
  };
}

// blocks

/** Stands for a zero page, in place of a chunk number. No chunk has this number. */
export const ZERO_PAGE = 0xffffffff;

/** `pages`: for each page of a block the number of its chunk, or {@link ZERO_PAGE}. */
export function encodeBlock(pages: Uint32Array): [Uint8Array, Uint8Array] {
  const bits = new Uint8Array(BLOCK_BITS_BYTES);
  for (let page = 0; page < BLOCK_PAGES; page++)
    if (pages[page] !== ZERO_PAGE) bits[page >>> 3]! |= 1 << (page & 7);
  return [bits, bytesOf(pages.filter((number) => number !== ZERO_PAGE))];
}

/** The blocks of a message. Each array is valid until the next one is asked for. Errors: REMOTE_FAILED. */
export function* decodeBlocks(bytes: Buffer): Generator<Uint32Array> {
  const pages = new Uint32Array(BLOCK_PAGES);
  let blocks = 0;
  for (let from = 0; from < bytes.length; blocks++) {
    if (blocks === BLOCKS_PER_MESSAGE)
      throw protocolError(`sent more than ${BLOCKS_PER_MESSAGE} blocks in one message`);
    if (bytes.length - from < MIN_BLOCK_BYTES) throw protocolError('sent a truncated block');
    let at = from + BLOCK_BITS_BYTES;
    for (let page = 0; page < BLOCK_PAGES; page++) {
      pages[page] = ZERO_PAGE;
      if ((bytes[from + (page >>> 3)]! & (1 << (page & 7))) === 0) continue;
      if (at + 4 > bytes.length) throw protocolError('sent a truncated block');
      pages[page] = bytes.readUInt32LE(at);
      if (pages[page] === ZERO_PAGE) throw protocolError('sent a block with an invalid chunk number');
      at += 4;
    }
    if (at === from + BLOCK_BITS_BYTES) throw protocolError('sent a block of zero pages');
    yield pages;
    from = at;
  }
}

// layout

/** Where blocks stand in a region. `pairs`: a block number of the region, then the number of a block that was sent. */
export interface LayoutMessage {
  readonly region: number;
  readonly pairs: ArrayLike<number>;
}

export function encodeLayout({ region, pairs }: LayoutMessage): Uint8Array {
  assert(pairs.length > 0 && pairs.length <= 2 * LAYOUT_PER_MESSAGE);
  return bytesOf(Uint32Array.from([region, ...Array.from(pairs)]));
}

/** Errors: REMOTE_FAILED. */
export function decodeLayout(bytes: Buffer): LayoutMessage {
  if (bytes.length % 8 !== 4 || bytes.length > 4 + 8 * LAYOUT_PER_MESSAGE)
    throw protocolError(`sent a layout with ${bytes.length} bytes`);
  const [region, ...pairs] = wordsOf(bytes) as unknown as [number, ...number[]];
  return { region, pairs };
}

const bytesOf = (words: Uint32Array): Uint8Array =>
  new Uint8Array(words.buffer, words.byteOffset, words.byteLength);

/** Copies: a message may lie at any offset of its buffer. */
const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(new Uint8Array(bytes).buffer);

// error

/** The length of a message or hint that a person still reads. */
const MAX_TEXT_LENGTH = 1000;

const shortened = (long: string): string =>
  long.length > MAX_TEXT_LENGTH ? `${long.slice(0, MAX_TEXT_LENGTH)}…` : long;

/** Files and offsets are those of the remote store. */
const damageOfRemote: Check<Damage> = object(
  {
    file: text(/^[ -~]{1,100}$/, 'a file name'),
    offset: nullable(integer()),
    snapshot: nullable(text(SNAPSHOT_ID, 'a snapshot ID')),
    region: nullable(regionName),
    fromBytes: nullable(integer()),
    toBytes: nullable(integer()),
  },
  { others: 'ignore' },
);

const errorCode = oneOf(...(Object.keys(ERROR_CODES) as ErrorCode[]));

export function encodeError(error: unknown): Buffer {
  const known =
    error instanceof LivesnapError
      ? error
      : new LivesnapError('SYSTEM', `internal error: ${(error as Error)?.message ?? error}`);
  const { code, message, hint, damage } = known.toJSON();
  const sent = { code, message: shortened(message), hint: hint === null ? null : shortened(hint), damage };
  return Buffer.from(JSON.stringify(sent));
}

/** Never fails: a missing or invalid field gets a default. */
export function decodeError(bytes: Buffer): LivesnapError {
  const value = parseJson(bytes.toString('utf8'));
  const { code, message, hint, damage } = isRecord(value) ? value : {};
  const sentHint = validOr(text(), hint, undefined);
  return new LivesnapError(
    validOr(errorCode, code, 'REMOTE_FAILED'),
    `remote: ${shortened(validOr(text(), message, 'unknown error'))}`,
    {
      ...(sentHint === undefined ? {} : { hint: shortened(sentHint) }),
      damage: validOr(damageOfRemote, damage, undefined),
    },
  );
}

const validOr = <T, U>(check: Check<T>, value: unknown, otherwise: U): T | U =>
  passes(check, value) ? (value as T) : otherwise;
