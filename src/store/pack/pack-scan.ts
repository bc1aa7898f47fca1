/**
 * Opens a pack in any condition, for repair: where the trailer cannot be read, the pack's lists are made from its
 * frames, each of which has its own chunk numbers (docs/format.md, "Frames").
 *
 * Invariant: only frames that match their checksum are listed, up to the first that does not or cannot be read.
 */
import type { PageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import { DEFAULT_DIGEST } from './digest.js';
import { FrameTable } from './frame-table.js';
import {
  checkFrame,
  Effort,
  FormatError,
  FRAME_HEADER_BYTES,
  type FrameEntry,
  frameBytes,
  isValidFrame,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
  type PackName,
} from './pack-format.js';
import { type PackBytes, type PackLists, readBytes, readLists, requirePackSize } from './pack-lists.js';
import { PackReader } from './pack-reader.js';

/** `lists`: of the same pack, from an earlier call. Errors: DAMAGED, NEWER_FORMAT. */
export function openDamagedPack(
  ops: PageOps,
  dir: string,
  pack: PackName,
  lists: PackLists | null = null,
): PackReader {
  const bytes = new StoreFile(dir, packFile(pack.number, pack.generation));
  try {
    requirePackSize(bytes, bytes.file);
    lists ??= listsOrNull(ops, bytes, pack) ?? scanFrames(ops, bytes, pack);
    return new PackReader(ops, dir, pack, { bytes, lists });
  } catch (error) {
    bytes.close();
    throw error;
  }
}

function listsOrNull(ops: PageOps, bytes: PackBytes, pack: PackName): PackLists | null {
  try {
    return readLists(ops, bytes, pack);
  } catch (error) {
    if (error instanceof DamageError) return null;
    throw error;
  }
}

/** Lists the frames from the beginning of a pack up to the first that is damaged. */
export function scanFrames(ops: PageOps, bytes: PackBytes, pack: PackName): PackLists {
  const frames = new FrameTable();
  const numbers: number[] = [];
  let offset = PACK_HEADER_BYTES;
  for (;;) {
    const found = readFrameAt(ops, bytes, pack, offset, frames.length, numbers);
    if (!found) break;
    frames.push(found.entry);
    numbers.push(...found.numbers);
    offset += frameBytes(found.entry);
  }
  const footer = {
    ...pack,
    frames: frames.length,
    chunks: numbers.length,
    effort: Effort.fast,
    digest: DEFAULT_DIGEST, // there are none to which this would apply
    trailerOffset: offset,
    tablesChecksum: 0n,
    identitiesChecksum: 0n,
  };
  return { footer, frames, numbers: Uint32Array.from(numbers), isSealed: false };
}

/** `before`: the chunk numbers of the frames before it. Null when there is no undamaged frame at the offset. */
function readFrameAt(
  ops: PageOps,
  bytes: PackBytes,
  pack: PackName,
  offset: number,
  index: number,
  before: readonly number[],
): { entry: FrameEntry; numbers: Uint32Array } | null {
  if (offset + FRAME_HEADER_BYTES > bytes.sizeBytes) return null;
  try {
    const header = readBytes(bytes, offset, FRAME_HEADER_BYTES);
    const entry: FrameEntry = {
      offset,
      storedBytes: header.readUInt32LE(8),
      first: before.length,
      chunks: header.readUInt16LE(12),
      flags: header.readUInt16LE(14),
    };
    if (!isValidFrame(entry) || offset + frameBytes(entry) > bytes.sizeBytes) return null;
    const frame = readBytes(bytes, offset, frameBytes(entry));
    const numbers = Uint32Array.from({ length: entry.chunks }, (_, i) =>
      frame.readUInt16LE(FRAME_HEADER_BYTES + 2 * i),
    );
    checkFrame(ops, frame, entry, numbers, pack.number, index);
    return ascend(before.at(-1) ?? -1, numbers) ? { entry, numbers } : null;
  } catch (error) {
    if (error instanceof FormatError || error instanceof DamageError) return null;
    throw error;
  }
}

/** Whether chunk numbers follow `last`, strictly ascending, and are in bounds. */
function ascend(last: number, numbers: Uint32Array): boolean {
  let previous = last;
  for (const number of numbers) {
    if (number <= previous || number >= PACK_CHUNKS) return false;
    previous = number;
  }
  return true;
}
