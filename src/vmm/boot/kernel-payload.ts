/**
 * Unpacks the compressed kernel inside a bzImage on the host: gzip (RFC 1952) and the legacy frame of LZ4 (LZ4 frame
 * format, "Legacy frame"), which Linux builds use. A kernel in any other format unpacks itself in the guest.
 *
 * Invariants:
 * - The unpacked size is bounded before anything is unpacked.
 * - A damaged payload is refused, never loaded in part.
 */
import { gunzipSync } from 'node:zlib';
import { loadLz4 } from '../../native/modules.js';
import { hex, type Image } from './image-file.js';

const LZ4_LEGACY_MAGIC = 0x184c2102;
/** The unpacked size of every block of a legacy frame but the last. */
const LZ4_BLOCK_BYTES = 8 << 20;
/** The Linux build appends the unpacked size, which the frame itself lacks. */
const LZ4_TRAILER_BYTES = 4;

export type PayloadFormat = 'gzip' | 'lz4';

/** The format of a payload, by its magic number; null for one that the host cannot unpack. */
export function payloadFormat(payload: Buffer): PayloadFormat | null {
  if (payload.length < 4) return null;
  if (payload[0] === 0x1f && payload[1] === 0x8b) return 'gzip';
  if (payload.readUInt32LE(0) === LZ4_LEGACY_MAGIC) return 'lz4';
  return null;
}

/**
 * @param image the bzImage, for errors
 * @param imageOffset where the payload begins in the image
 * @param maxBytes the largest unpacked size that is accepted
 * @throws LivesnapError BAD_IMAGE; SYSTEM when lz4-napi cannot be loaded
 */
export function unpackPayload(
  format: PayloadFormat,
  payload: Buffer,
  image: Image,
  imageOffset: number,
  maxBytes: number,
): Buffer {
  return format === 'gzip'
    ? gunzip(payload, image, imageOffset, maxBytes)
    : unpackLz4(payload, image, imageOffset, maxBytes);
}

function gunzip(payload: Buffer, image: Image, imageOffset: number, maxBytes: number): Buffer {
  try {
    return gunzipSync(payload, { maxOutputLength: maxBytes });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ERR_BUFFER_TOO_LARGE') {
      throw image.bad(imageOffset, `the gzip payload unpacks to more than init_size, ${maxBytes} bytes`);
    }
    throw image.bad(imageOffset, `the gzip payload is damaged: ${message}`);
  }
}

function unpackLz4(payload: Buffer, image: Image, imageOffset: number, maxBytes: number): Buffer {
  const end = payload.length - LZ4_TRAILER_BYTES;
  if (end < 4) throw image.bad(imageOffset, 'the LZ4 payload is truncated');
  const unpackedBytes = payload.readUInt32LE(end);
  if (unpackedBytes > maxBytes) {
    throw image.bad(
      imageOffset + end,
      `the unpacked size of the LZ4 payload is ${unpackedBytes} bytes, more than init_size, ${maxBytes} bytes`,
    );
  }
  const output = Buffer.alloc(unpackedBytes);
  let at = 4;
  let done = 0;
  while (at + 4 <= end) {
    const blockBytes = payload.readUInt32LE(at);
    // Several frames may follow each other. An empty block ends the data.
    if (blockBytes === LZ4_LEGACY_MAGIC) {
      at += 4;
      continue;
    }
    if (blockBytes === 0) break;
    const block = imageOffset + at;
    at += 4;
    if (blockBytes > end - at)
      throw image.bad(block, `an LZ4 block of ${blockBytes} bytes extends beyond the payload`);
    const wanted = Math.min(LZ4_BLOCK_BYTES, unpackedBytes - done);
    if (wanted === 0) throw image.bad(block, 'an LZ4 block follows the end of the unpacked kernel');
    unpackBlock(payload.subarray(at, at + blockBytes), wanted, image, block).copy(output, done);
    done += wanted;
    at += blockBytes;
  }
  if (done !== unpackedBytes) {
    throw image.bad(imageOffset + at, `the LZ4 payload unpacks to ${done} bytes, not ${unpackedBytes}`);
  }
  return output;
}

/** Unpacks one raw LZ4 block. lz4-napi expects the unpacked size in four bytes before the block. */
function unpackBlock(block: Buffer, wanted: number, image: Image, offset: number): Buffer {
  const sized = Buffer.allocUnsafe(4 + block.length);
  sized.writeUInt32LE(wanted, 0);
  block.copy(sized, 4);
  const { uncompressSync } = loadLz4();
  let unpacked: Buffer;
  try {
    unpacked = uncompressSync(sized);
  } catch (cause) {
    throw image.bad(offset, `an LZ4 block is damaged: ${(cause as Error).message}`);
  }
  if (unpacked.length !== wanted) {
    throw image.bad(offset, `an LZ4 block unpacks to ${hex(unpacked.length)} bytes, not ${hex(wanted)}`);
  }
  return unpacked;
}
