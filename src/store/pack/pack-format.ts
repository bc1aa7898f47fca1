/**
 * The byte layout of packs (docs/format.md, "Packs"): header, frame headers, frame table and footer. All numbers are
 * little-endian. Nothing here does I/O; everything read is checked before it is believed.
 */

import { createHash } from 'node:crypto';
import { LivesnapError } from '../../errors.js';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, LostChunkError } from '../disk/damage.js';

/** Pages that a manifest block covers: 2 MiB of a region. */
export const BLOCK_PAGES = 512;
/** Chunks compressed together: what bench/store-frames.ts favours. */
export const FRAME_CHUNKS = 16;
export const FRAME_BYTES = FRAME_CHUNKS * PAGE_BYTES;
/** A pack is sealed at this many chunks (128 MiB before compression), so that gc has no giant to rewrite. */
export const PACK_CHUNKS = 32768;
/** No store comes to a higher number of a pack or segment; one that is met is not believed, so that numbers are left. */
export const HIGHEST_NUMBER = 2 ** 32 - 2 ** 20;
/** No pack is longer: offsets are 32 bits. */
export const MAX_PACK_BYTES = 0xffffffff;

export const FORMAT_VERSION = 1;

export const PACK_HEADER_BYTES = 32;
/** Before the chunk numbers. */
export const FRAME_HEADER_BYTES = 16;
export const FRAME_ENTRY_BYTES = 16;
export const FOOTER_BYTES = 64;
export const SHA256_BYTES = 32;
/** What a chunk costs in the trailer: number, fingerprint, SHA-256. */
export const CHUNK_ENTRY_BYTES = 4 + 8 + SHA256_BYTES;

const PACK_MAGIC = 'LIVESNPK';
const FOOTER_MAGIC = 'LIVESNPT';

/**
 * Bits of a frame's flags. `lost`: the chunks are known by their identities alone, there is no payload; repair writes
 * such frames.
 */
export const FrameFlag = { compressed: 1, manifest: 2, lost: 4 } as const;

/** Why bytes could not be believed; the caller knows file and offset. */
export class FormatError extends Error {}

/**
 * To be called when the checksum holds, which is in the same place in all versions: a flipped bit is no new format.
 * Errors: NEWER_FORMAT.
 */
export function refuseNewer(what: string, version: number): void {
  if (version > FORMAT_VERSION)
    throw new LivesnapError(
      'NEWER_FORMAT',
      `${what} has format version ${version}; this livesnap knows versions up to ${FORMAT_VERSION}`,
      { hint: 'Use the livesnap that wrote it, or a newer one.' },
    );
}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const hasMagic = (bytes: Uint8Array, magic: string): boolean =>
  Buffer.from(bytes.buffer, bytes.byteOffset, 8).toString('latin1') === magic;

export interface PackName {
  readonly number: number;
  readonly generation: number;
}

export function encodePackHeader(ops: PageOps, pack: PackName): Uint8Array {
  const bytes = new Uint8Array(PACK_HEADER_BYTES);
  const view = viewOf(bytes);
  Buffer.from(bytes.buffer).write(PACK_MAGIC, 'latin1');
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, pack.number, true);
  view.setUint32(16, pack.generation, true);
  ops.checksum(bytes, 0, 24, 0, 0, bytes.subarray(24));
  return bytes;
}

export function decodePackHeader(ops: PageOps, bytes: Uint8Array, pack: PackName, what: string): void {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, PACK_MAGIC)) throw new FormatError('this is not a pack');
  requireChecksum(ops, bytes, 0, 24, 24, 'the header');
  refuseNewer(what, view.getUint32(8, true));
  if (view.getUint32(12, true) !== pack.number || view.getUint32(16, true) !== pack.generation)
    throw new FormatError('the header is of another pack');
}

/** Where a frame is and what it holds: a row of the frame table. */
export interface FrameEntry {
  /** Of the frame's header. */
  offset: number;
  /** Without the header. */
  storedBytes: number;
  /** Position of its first chunk in the pack's lists. */
  first: number;
  chunks: number;
  flags: number;
}

/** Bytes before the payload: 16, and the number of each chunk (u16), so that a frame says itself what it holds. */
const frameHeadBytes = (chunks: number): number => FRAME_HEADER_BYTES + 2 * chunks;

/** Bytes of a frame as stored. */
export const frameBytes = ({ chunks, storedBytes }: { chunks: number; storedBytes: number }): number =>
  frameHeadBytes(chunks) + storedBytes;

/** The most bytes a frame takes. */
export const MAX_FRAME_BYTES = frameHeadBytes(FRAME_CHUNKS) + FRAME_BYTES;

/** Where the payload of a frame begins, from its header. */
export const payloadOffset = frameHeadBytes;

/** The frame table of a pack, in the words that are on disk: offset, stored bytes, first position, chunks and flags. */
export class FrameTable {
  #words: Uint32Array;
  #count: number;

  /** `bytes`: a table as stored. */
  constructor(bytes: Uint8Array = new Uint8Array(0)) {
    this.#words = new Uint32Array(bytes.length / 4);
    new Uint8Array(this.#words.buffer).set(bytes);
    this.#count = bytes.length / FRAME_ENTRY_BYTES;
  }

  get length(): number {
    return this.#count;
  }

  at(index: number): FrameEntry {
    const [offset, storedBytes, first, rest] = this.#words.subarray(4 * index, 4 * index + 4) as unknown as [
      number,
      number,
      number,
      number,
    ];
    return { offset, storedBytes, first, chunks: rest & 0xffff, flags: rest >>> 16 };
  }

  *[Symbol.iterator](): Iterator<FrameEntry> {
    for (let i = 0; i < this.#count; i++) yield this.at(i);
  }

  push({ offset, storedBytes, first, chunks, flags }: FrameEntry): void {
    if (4 * this.#count === this.#words.length) {
      const grown = new Uint32Array(Math.max(256, 2 * this.#words.length));
      grown.set(this.#words);
      this.#words = grown;
    }
    this.#words.set([offset, storedBytes, first, (chunks | (flags << 16)) >>> 0], 4 * this.#count++);
  }

  /** Index of the frame that holds the chunk at a position. */
  indexOf(position: number): number {
    let low = Math.min(Math.floor(position / FRAME_CHUNKS), this.#count - 1); // no frame holds more
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#words[4 * middle + 2]! <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** As stored. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, this.#count * FRAME_ENTRY_BYTES);
  }
}

/**
 * Writes what comes before a payload that already stands in `frame` after it: checksum, length, count, flags, chunk
 * numbers. The checksum covers everything after itself, and its seed is the frame's place (pack number, frame index),
 * so that a frame found elsewhere does not pass.
 */
export function encodeFrameHead(
  ops: PageOps,
  frame: Uint8Array,
  entry: FrameEntry,
  numbers: Uint32Array,
  pack: number,
  index: number,
): void {
  const view = viewOf(frame);
  view.setUint32(8, entry.storedBytes, true);
  view.setUint16(12, entry.chunks, true);
  view.setUint16(14, entry.flags, true);
  for (let i = 0; i < entry.chunks; i++) view.setUint16(FRAME_HEADER_BYTES + 2 * i, numbers[i]!, true);
  ops.checksum(frame, 8, frameBytes(entry) - 8, pack, index, frame);
}

/**
 * Checks a frame as read against its checksum, its row of the frame table and the numbers that the pack lists.
 * Errors: {@link FormatError}.
 */
export function checkFrame(
  ops: PageOps,
  frame: Uint8Array,
  entry: FrameEntry,
  numbers: Uint32Array,
  pack: number,
  index: number,
): void {
  const view = viewOf(frame);
  ops.checksum(frame, 8, frameBytes(entry) - 8, pack, index, scratch);
  if (!ops.equal(frame, 0, scratch, 0, 8)) throw new FormatError('the frame does not match its checksum');
  let same =
    view.getUint32(8, true) === entry.storedBytes &&
    view.getUint16(12, true) === entry.chunks &&
    view.getUint16(14, true) === entry.flags;
  for (let i = 0; same && i < entry.chunks; i++)
    same = view.getUint16(FRAME_HEADER_BYTES + 2 * i, true) === numbers[i];
  if (!same) throw new FormatError('the frame is not the one that the pack lists here');
}

/**
 * Checks a frame as read and unpacks it into `raw` (at least as long as its chunks). `numbers`: of its chunks.
 * Errors: DAMAGED; {@link LostChunkError}.
 */
export function decodeFrame(
  ops: PageOps,
  stored: Uint8Array,
  entry: FrameEntry,
  numbers: Uint32Array,
  pack: number,
  index: number,
  raw: Uint8Array,
  file: string,
): void {
  try {
    checkFrame(ops, stored, entry, numbers, pack, index);
    if ((entry.flags & FrameFlag.lost) !== 0) throw new LostChunkError(file, entry.offset);
    const payload = payloadOffset(entry.chunks);
    if ((entry.flags & FrameFlag.compressed) === 0)
      raw.set(stored.subarray(payload, payload + entry.storedBytes));
    else if (!ops.decompress(stored, payload, entry.storedBytes, raw, 0, entry.chunks * PAGE_BYTES))
      throw new FormatError('the frame is not a valid LZ4 block');
  } catch (error) {
    if (error instanceof FormatError) throw new DamageError(file, entry.offset, error.message);
    throw error;
  }
}

/** Whether a page has this SHA-256. */
export const isDigest = (page: Uint8Array, digest: Uint8Array): boolean =>
  Buffer.compare(createHash('sha256').update(page).digest(), digest) === 0;

/** XXH64 of all of `bytes`. */
export function sum(ops: PageOps, bytes: Uint8Array): bigint {
  const out = Buffer.alloc(8);
  ops.checksum(bytes, 0, bytes.length, 0, 0, out);
  return out.readBigUInt64LE();
}

const scratch = new Uint8Array(8);

/** `at`: where the 8 bytes of the checksum of [start, start + length) are. */
function requireChecksum(
  ops: PageOps,
  bytes: Uint8Array,
  start: number,
  length: number,
  at: number,
  what: string,
): void {
  ops.checksum(bytes, start, length, 0, 0, scratch);
  if (!ops.equal(bytes, at, scratch, 0, 8)) throw new FormatError(`${what} does not match its checksum`);
}

export interface PackFooter extends PackName {
  frames: number;
  chunks: number;
  /** Where the trailer begins: frame table, numbers, fingerprints, SHA-256s, footer. */
  trailerOffset: number;
  /** XXH64 of frame table and numbers, and of fingerprints and SHA-256s. */
  placesChecksum: bigint;
  identitiesChecksum: bigint;
}

export const trailerBytes = (frames: number, chunks: number): number =>
  frames * FRAME_ENTRY_BYTES + chunks * CHUNK_ENTRY_BYTES + FOOTER_BYTES;

export function encodeFooter(ops: PageOps, footer: PackFooter): Uint8Array {
  const bytes = new Uint8Array(FOOTER_BYTES);
  const view = viewOf(bytes);
  Buffer.from(bytes.buffer).write(FOOTER_MAGIC, 'latin1');
  view.setUint32(8, FORMAT_VERSION, true);
  view.setUint32(12, footer.number, true);
  view.setUint32(16, footer.generation, true);
  view.setUint32(20, footer.frames, true);
  view.setUint32(24, footer.chunks, true);
  view.setBigUint64(32, BigInt(footer.trailerOffset), true);
  view.setBigUint64(40, footer.placesChecksum, true);
  view.setBigUint64(48, footer.identitiesChecksum, true);
  ops.checksum(bytes, 0, 56, 0, 0, bytes.subarray(56));
  return bytes;
}

/** `fileBytes`: the size of the file, which the counts must account for to the byte. */
export function decodeFooter(
  ops: PageOps,
  bytes: Uint8Array,
  pack: PackName,
  fileBytes: number,
  what: string,
): PackFooter {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, FOOTER_MAGIC)) throw new FormatError('the pack is not sealed: its footer is missing');
  requireChecksum(ops, bytes, 0, 56, 56, 'the footer');
  refuseNewer(what, view.getUint32(8, true));
  const footer: PackFooter = {
    number: view.getUint32(12, true),
    generation: view.getUint32(16, true),
    frames: view.getUint32(20, true),
    chunks: view.getUint32(24, true),
    trailerOffset: Number(view.getBigUint64(32, true)),
    placesChecksum: view.getBigUint64(40, true),
    identitiesChecksum: view.getBigUint64(48, true),
  };
  if (footer.number !== pack.number || footer.generation !== pack.generation)
    throw new FormatError('the footer is of another pack');
  if (
    footer.frames > footer.chunks ||
    footer.chunks < 1 ||
    footer.chunks > PACK_CHUNKS ||
    footer.trailerOffset < PACK_HEADER_BYTES ||
    footer.trailerOffset + trailerBytes(footer.frames, footer.chunks) !== fileBytes
  )
    throw new FormatError('the footer does not account for the size of the file');
  return footer;
}
