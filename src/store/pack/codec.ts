/**
 * The codecs of frames (docs/format.md, "Frames").
 *
 * To add a codec, add one entry to {@link CODECS}. Its index there is its id on disk, so entries are never removed or
 * moved. To make packs use it, set {@link DEFAULT_CODEC}.
 *
 * Invariant: a codec does not trust what it decompresses. Its output has exactly the length that the caller asks for,
 * which follows from the number of chunks and is never read from the payload.
 */
import type { PageOps } from '../../native/pages.js';
import { newerFormat } from '../disk/format-version.js';

export interface Codec {
  readonly name: string;
  /**
   * Writes the first `length` bytes of `raw` to `target`; returns the stored length, 0 if it exceeds `maxBytes`.
   * `isHigh`: takes more time for fewer bytes, where `ops` can do that.
   */
  compress(
    ops: PageOps,
    raw: Uint8Array,
    length: number,
    target: Uint8Array,
    offset: number,
    maxBytes: number,
    isHigh?: boolean,
  ): number;
  /** Fills the first `rawBytes` of `raw`; false if the payload is malformed or gives another length. */
  decompress(
    ops: PageOps,
    stored: Uint8Array,
    offset: number,
    storedBytes: number,
    raw: Uint8Array,
    rawBytes: number,
  ): boolean;
}

/** The payload is the bytes of the chunks. */
const rawCodec: Codec = {
  name: 'raw',
  compress(_ops, source, length, target, offset, maxBytes) {
    if (length > maxBytes) return 0;
    target.set(source.subarray(0, length), offset);
    return length;
  },
  decompress(_ops, stored, offset, storedBytes, target, rawBytes) {
    if (storedBytes !== rawBytes) return false;
    target.set(stored.subarray(offset, offset + storedBytes));
    return true;
  },
};

/** The payload is one LZ4 block, without a length before it. */
const lz4Codec: Codec = {
  name: 'LZ4',
  compress: (ops, source, length, target, offset, maxBytes, isHigh) =>
    ops.compress(source, length, target, offset, maxBytes, isHigh),
  decompress: (ops, stored, offset, storedBytes, target, rawBytes) =>
    ops.decompress(stored, offset, storedBytes, target, 0, rawBytes),
};

export const RAW = 0;
export const LZ4 = 1;
/** Every codec by its id. */
export const CODECS: readonly Codec[] = [rawCodec, lz4Codec];

/** The codec that compresses the frames of new packs. */
export const DEFAULT_CODEC = LZ4;

/** `where`: the frame, for the error. Errors: NEWER_FORMAT for an unknown id. */
export function codecById(id: number, where: string): Codec {
  const codec = CODECS[id];
  if (!codec)
    throw newerFormat(`${where}: the frame is compressed by codec ${id}, which this livesnap does not know`);
  return codec;
}
