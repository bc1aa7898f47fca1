/**
 * The lists of a pack: which frames and chunks it has, read from its trailer (docs/format.md, "Trailer").
 *
 * Invariant: lists are verified by their checksum, and every offset, count and number in them is checked, before they
 * are returned.
 */
import type { PageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import { packFile } from '../disk/layout.js';
import type { StoreFile } from '../disk/store-file.js';
import { FrameTable } from './frame-table.js';
import { xxh64 } from './hashes.js';
import {
  decodeFooter,
  decodePackHeader,
  FOOTER_BYTES,
  FormatError,
  FRAME_ENTRY_BYTES,
  frameBytes,
  isValidFrame,
  MAX_PACK_BYTES,
  PACK_CHUNKS,
  PACK_HEADER_BYTES,
  type PackFooter,
  type PackName,
  tablesBytes,
} from './pack-format.js';

/** Where a pack's bytes come from: its file, or what a copy has fetched of it. */
export type PackBytes = Pick<StoreFile, 'sizeBytes' | 'readInto' | 'close'>;

export interface PackLists {
  readonly footer: PackFooter;
  readonly frames: FrameTable;
  /** Chunk numbers, ascending. A chunk's position here is its position in every list of the pack. */
  readonly numbers: Uint32Array;
  /** False: the trailer cannot be read, and the lists were made from the frames (see pack-scan.ts). */
  readonly isSealed: boolean;
}

export function readBytes(bytes: PackBytes, offset: number, length: number): Buffer {
  const read = Buffer.allocUnsafe(length);
  bytes.readInto(read, offset, length);
  return read;
}

/** Errors: DAMAGED when a pack cannot have the file's size. */
export function requirePackSize({ sizeBytes }: PackBytes, file: string): void {
  if (sizeBytes < PACK_HEADER_BYTES + FOOTER_BYTES || sizeBytes > MAX_PACK_BYTES)
    throw new DamageError(file, null, `a pack cannot have ${sizeBytes} bytes`);
}

/** Errors: DAMAGED, NEWER_FORMAT. */
export function requirePackHeader(ops: PageOps, bytes: PackBytes, pack: PackName): void {
  const file = packFile(pack.number, pack.generation);
  const header = readBytes(bytes, 0, PACK_HEADER_BYTES);
  asDamage(file, 0, () => decodePackHeader(ops, header, pack, file));
}

/** Errors: DAMAGED, NEWER_FORMAT. */
export function readFooter(ops: PageOps, bytes: PackBytes, pack: PackName): PackFooter {
  const file = packFile(pack.number, pack.generation);
  const footerAt = bytes.sizeBytes - FOOTER_BYTES;
  const tail = readBytes(bytes, footerAt, FOOTER_BYTES);
  return asDamage(file, footerAt, () => decodeFooter(ops, tail, pack, bytes.sizeBytes, file));
}

/** Reads the footer, the frame table and the chunk numbers. Errors: DAMAGED, NEWER_FORMAT. */
export function readLists(ops: PageOps, bytes: PackBytes, pack: PackName): PackLists {
  const file = packFile(pack.number, pack.generation);
  const footer = readFooter(ops, bytes, pack);
  const tables = readBytes(bytes, footer.trailerOffset, tablesBytes(footer));
  if (xxh64(ops, tables) !== footer.tablesChecksum)
    throw new DamageError(file, footer.trailerOffset, 'the frame table does not match its checksum');
  const frames = decodeFrames(tables, footer, file);
  return { footer, frames, numbers: decodeNumbers(tables, footer, file), isSealed: true };
}

function decodeFrames(
  tables: Buffer,
  { frames, chunks, trailerOffset }: PackFooter,
  file: string,
): FrameTable {
  const table = new FrameTable(tables.subarray(0, frames * FRAME_ENTRY_BYTES));
  let offset = PACK_HEADER_BYTES;
  let first = 0;
  let i = 0;
  for (const entry of table) {
    if (entry.offset !== offset || entry.first !== first || !isValidFrame(entry))
      throw new DamageError(file, trailerOffset + i * FRAME_ENTRY_BYTES, 'the entry of a frame is wrong');
    offset += frameBytes(entry);
    first += entry.chunks;
    i++;
  }
  if (offset !== trailerOffset || first !== chunks)
    throw new DamageError(file, trailerOffset, 'the frames do not fill the pack');
  return table;
}

function decodeNumbers(
  tables: Buffer,
  { frames, chunks, trailerOffset }: PackFooter,
  file: string,
): Uint32Array {
  const numbers = new Uint32Array(chunks);
  for (let i = 0, previous = -1; i < chunks; i++) {
    const number = tables.readUInt32LE(frames * FRAME_ENTRY_BYTES + i * 4);
    if (number <= previous || number >= PACK_CHUNKS)
      throw new DamageError(file, trailerOffset, 'the chunk numbers do not ascend');
    numbers[i] = previous = number;
  }
  return numbers;
}

function asDamage<T>(file: string, offset: number, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof FormatError) throw new DamageError(file, offset, error.message);
    throw error;
  }
}
