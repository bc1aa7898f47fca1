/**
 * The byte layout of packs: header, frames, rows of the frame table, footer (docs/format.md, "Packs"). Numbers are
 * little-endian.
 *
 * Invariants:
 * - Nothing here does I/O.
 * - Bytes are verified by their checksum before a number in them is used.
 */
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, LostChunkError } from '../disk/damage.js';
import { FORMAT_VERSION, PACK_VERSION, refuseNewer } from '../disk/format-version.js';
import { codecById, LZ4, RAW } from './codec.js';
import { DIGEST_BYTES, requireKnownDigest, SHA256 } from './digest.js';

/** The most chunks of a frame, which are compressed together. bench/store-frames.ts compares sizes. */
export const FRAME_CHUNKS = 16;
export const FRAME_BYTES = FRAME_CHUNKS * PAGE_BYTES;
/** The most chunks of a pack, 128 MiB before compression: gc never has a larger file to rewrite. */
export const PACK_CHUNKS = 32768;
/** Offsets are 32 bits. */
export const MAX_PACK_BYTES = 0xffffffff;

export const PACK_HEADER_BYTES = 32;
/** Of a frame's header, before the chunk numbers. */
export const FRAME_HEADER_BYTES = 16;
/** Of a row of the frame table. */
export const FRAME_ENTRY_BYTES = 16;
export const FOOTER_BYTES = 64;
export const FINGERPRINT_BYTES = 8;
/** What the trailer holds for a chunk: its number, fingerprint and digest. */
export const CHUNK_ENTRY_BYTES = 4 + FINGERPRINT_BYTES + DIGEST_BYTES;

const PACK_MAGIC = 'LIVESNPK';
const FOOTER_MAGIC = 'LIVESNPT';

/**
 * Bits of a frame's flags. `lz4`: the payload is an LZ4 block. `manifest`: the chunks are halves of manifest blocks.
 * `lost`: there is no payload, only the identities of the chunks; repair writes such frames.
 */
export const FrameFlag = { lz4: 1, manifest: 2, lost: 4 } as const;
/** The flags' bits that hold a codec: bit 0 means LZ4, bits 8 to 15 are the id of any later codec. */
const CODEC_BITS = 0xff00 | FrameFlag.lz4;

/** The id of a frame's codec. */
export const codecIdOf = (flags: number): number =>
  flags >>> 8 || ((flags & FrameFlag.lz4) !== 0 ? LZ4 : RAW);

/** The bits of the flags that say that a frame has this codec. */
export const codecFlags = (id: number): number => (id === LZ4 ? FrameFlag.lz4 : id << 8);

/**
 * How much time the compression of a pack's frames took: a word of the footer. `high`: as long as LZ4-HC takes (`gc
 * --recompress`). A later livesnap may have higher values. Readers ignore it.
 */
export const Effort = { fast: 0, high: 1 } as const;
export type Effort = (typeof Effort)[keyof typeof Effort];

/** Bytes do not have the layout. The caller adds file and offset. */
export class FormatError extends Error {}

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const hasMagic = (bytes: Uint8Array, magic: string): boolean =>
  Buffer.from(bytes.buffer, bytes.byteOffset, 8).toString('latin1') === magic;

const scratch = new Uint8Array(8);

/** Verifies the checksum at `at`, which is of the bytes before it. */
function requireChecksum(ops: PageOps, bytes: Uint8Array, at: number, what: string): void {
  ops.checksum(bytes, 0, at, 0, 0, scratch);
  if (!ops.equal(bytes, at, scratch, 0, 8)) throw new FormatError(`${what} does not match its checksum`);
}

export interface PackName {
  readonly number: number;
  readonly generation: number;
}

/** An earlier livesnap takes all digests for SHA-256, so it has to refuse packs with others. */
const versionFor = (digest: number): number => (digest === SHA256 ? FORMAT_VERSION : PACK_VERSION);

const HEADER_CHECKSUM_AT = 24;

/** `digest`: the ID of the pack's digests. */
export function encodePackHeader(ops: PageOps, pack: PackName, digest: number): Uint8Array {
  const bytes = new Uint8Array(PACK_HEADER_BYTES);
  const view = viewOf(bytes);
  Buffer.from(bytes.buffer).write(PACK_MAGIC, 'latin1');
  view.setUint32(8, versionFor(digest), true);
  view.setUint32(12, pack.number, true);
  view.setUint32(16, pack.generation, true);
  ops.checksum(bytes, 0, HEADER_CHECKSUM_AT, 0, 0, bytes.subarray(HEADER_CHECKSUM_AT));
  return bytes;
}

/** Verifies that a header is that of `pack`. Errors: {@link FormatError}, NEWER_FORMAT. */
export function decodePackHeader(ops: PageOps, bytes: Uint8Array, pack: PackName, file: string): void {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, PACK_MAGIC)) throw new FormatError('this is not a pack');
  requireChecksum(ops, bytes, HEADER_CHECKSUM_AT, 'the header');
  refuseNewer(file, view.getUint32(8, true), PACK_VERSION);
  if (view.getUint32(12, true) !== pack.number || view.getUint32(16, true) !== pack.generation)
    throw new FormatError('the header is of another pack');
}

/** Where a frame is and what it holds: a row of the frame table. */
export interface FrameEntry {
  /** Where the frame's header begins in the file. */
  offset: number;
  /** Length of the payload. */
  storedBytes: number;
  /** Position of its first chunk in the pack's lists. */
  first: number;
  chunks: number;
  flags: number;
}

/** Where the payload of a frame begins: after the header and a u16 for the number of each chunk. */
export const payloadOffset = (chunks: number): number => FRAME_HEADER_BYTES + 2 * chunks;

/** Length of a frame in the file. */
export const frameBytes = ({ chunks, storedBytes }: { chunks: number; storedBytes: number }): number =>
  payloadOffset(chunks) + storedBytes;

export const MAX_FRAME_BYTES = frameBytes({ chunks: FRAME_CHUNKS, storedBytes: FRAME_BYTES });

/** Whether the chunk count, the flags and the payload length of a frame fit together. */
export function isValidFrame({ chunks, flags, storedBytes }: FrameEntry): boolean {
  if (chunks < 1 || chunks > FRAME_CHUNKS) return false;
  const codec = codecIdOf(flags);
  if ((flags & CODEC_BITS) !== codecFlags(codec)) return false; // two codecs
  if ((flags & FrameFlag.lost) !== 0) return storedBytes === 0 && codec === RAW;
  const rawBytes = chunks * PAGE_BYTES;
  return codec === RAW ? storedBytes === rawBytes : storedBytes >= 1 && storedBytes <= rawBytes;
}

/**
 * Writes the header and the chunk numbers of a frame whose payload is in `frame` already. The checksum is seeded with
 * the frame's place (pack number and frame index), so a frame that was moved fails it.
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
 * Verifies a frame against its checksum, its row of the frame table and the chunk numbers of the trailer.
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
  let isSame =
    view.getUint32(8, true) === entry.storedBytes &&
    view.getUint16(12, true) === entry.chunks &&
    view.getUint16(14, true) === entry.flags;
  for (let i = 0; isSame && i < entry.chunks; i++)
    isSame = view.getUint16(FRAME_HEADER_BYTES + 2 * i, true) === numbers[i];
  if (!isSame) throw new FormatError('the frame differs from its entry in the trailer');
}

/**
 * Verifies a frame and decompresses it into `raw`. `numbers`: the chunk numbers that the trailer lists for it.
 * Errors: DAMAGED ({@link LostChunkError} for a lost frame), NEWER_FORMAT for an unknown codec.
 */
export function decodeFrame(
  ops: PageOps,
  frame: Uint8Array,
  entry: FrameEntry,
  numbers: Uint32Array,
  pack: number,
  index: number,
  raw: Uint8Array,
  file: string,
): void {
  const { chunks, flags, offset, storedBytes } = entry;
  try {
    checkFrame(ops, frame, entry, numbers, pack, index);
    if ((flags & FrameFlag.lost) !== 0) throw new LostChunkError(file, offset);
    const codec = codecById(codecIdOf(flags), `${file} at offset ${offset}`);
    if (!codec.decompress(ops, frame, payloadOffset(chunks), storedBytes, raw, chunks * PAGE_BYTES))
      throw new FormatError(`the payload is not valid ${codec.name} data`);
  } catch (error) {
    if (error instanceof FormatError) throw new DamageError(file, offset, error.message);
    throw error;
  }
}

export interface PackFooter extends PackName {
  frames: number;
  chunks: number;
  /** {@link Effort}, or a value that this livesnap does not know. */
  effort: number;
  /** The ID of the digests. */
  digest: number;
  /** Where the trailer begins: frame table, chunk numbers, fingerprints, digests, footer. */
  trailerOffset: number;
  /** XXH64 of the frame table and the chunk numbers. */
  tablesChecksum: bigint;
  /** XXH64 of the fingerprints and the digests. */
  identitiesChecksum: bigint;
}

/** Lengths of the trailer's parts. */
export const tablesBytes = ({ frames, chunks }: { frames: number; chunks: number }): number =>
  frames * FRAME_ENTRY_BYTES + chunks * 4;
export const identitiesBytes = (chunks: number): number => chunks * (FINGERPRINT_BYTES + DIGEST_BYTES);

const FOOTER_CHECKSUM_AT = 56;

export function encodeFooter(ops: PageOps, footer: PackFooter): Uint8Array {
  const bytes = new Uint8Array(FOOTER_BYTES);
  const view = viewOf(bytes);
  Buffer.from(bytes.buffer).write(FOOTER_MAGIC, 'latin1');
  view.setUint32(8, versionFor(footer.digest), true);
  view.setUint32(12, footer.number, true);
  view.setUint32(16, footer.generation, true);
  view.setUint32(20, footer.frames, true);
  view.setUint32(24, footer.chunks, true);
  view.setUint16(28, footer.effort, true);
  view.setUint16(30, footer.digest, true);
  view.setBigUint64(32, BigInt(footer.trailerOffset), true);
  view.setBigUint64(40, footer.tablesChecksum, true);
  view.setBigUint64(48, footer.identitiesChecksum, true);
  ops.checksum(bytes, 0, FOOTER_CHECKSUM_AT, 0, 0, bytes.subarray(FOOTER_CHECKSUM_AT));
  return bytes;
}

/** `fileBytes`: the size of the file, which the counts must give exactly. Errors: {@link FormatError}, NEWER_FORMAT. */
export function decodeFooter(
  ops: PageOps,
  bytes: Uint8Array,
  pack: PackName,
  fileBytes: number,
  file: string,
): PackFooter {
  const view = viewOf(bytes);
  if (!hasMagic(bytes, FOOTER_MAGIC)) throw new FormatError('the pack is not sealed: its footer is missing');
  requireChecksum(ops, bytes, FOOTER_CHECKSUM_AT, 'the footer');
  const version = view.getUint32(8, true);
  refuseNewer(file, version, PACK_VERSION);
  const namesDigest = version >= PACK_VERSION;
  const digest = namesDigest ? view.getUint16(30, true) : SHA256;
  requireKnownDigest(digest, file);
  const footer: PackFooter = {
    number: view.getUint32(12, true),
    generation: view.getUint32(16, true),
    frames: view.getUint32(20, true),
    chunks: view.getUint32(24, true),
    effort: namesDigest ? view.getUint16(28, true) : view.getUint32(28, true),
    digest,
    trailerOffset: Number(view.getBigUint64(32, true)),
    tablesChecksum: view.getBigUint64(40, true),
    identitiesChecksum: view.getBigUint64(48, true),
  };
  if (footer.number !== pack.number || footer.generation !== pack.generation)
    throw new FormatError('the footer is of another pack');
  const { frames, chunks, trailerOffset } = footer;
  if (
    frames > chunks ||
    chunks < 1 ||
    chunks > PACK_CHUNKS ||
    trailerOffset < PACK_HEADER_BYTES ||
    trailerOffset + tablesBytes(footer) + identitiesBytes(chunks) + FOOTER_BYTES !== fileBytes
  )
    throw new FormatError('the counts in the footer do not match the size of the file');
  return footer;
}
