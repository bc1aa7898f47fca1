/**
 * The files `segments/NUMBER.seg`: sorted fingerprint entries, mapped to be searched (docs/format.md, "Segments").
 *
 * Invariants: written once, fsynced, never changed; locked by their maker until the index lists them. What they say
 * are hints, proven by bytes, so a reader trusts size and header only, and one that is missing or damaged costs room
 * and nothing else; check reads all of it.
 */
import assert from 'node:assert/strict';
import { closeSync, fsyncSync, writeSync } from 'node:fs';
import { mapFile, unmapFile } from '../native/mapped-file.js';
import type { PageOps } from '../native/pages.js';
import { DamageError } from './damage.js';
import { createLocked, unlinkUnlessLocked } from './file-locks.js';
import { SEGMENT_ENTRY_BYTES, Segment } from './fingerprints.js';
import { FORMAT_VERSION } from './format.js';
import { at, isFileNumber, removeIfThere, SEGMENTS } from './layout.js';
import { MissingFileError, StoreFile } from './store-file.js';

const MAGIC = 'LIVESNSG';
const HEADER_BYTES = 32;
const CHECKSUM_BYTES = 8;
/** Entries are 16 bytes; one file has at most 1 GiB of them. */
export const MAX_SEGMENT_ENTRIES = 1 << 26;

/** A row of the index: the file's number, and how many entries it has. */
export interface SegmentRow {
  /** Of the numbers that packs have, too; the larger, the newer. */
  readonly number: number;
  readonly entries: number;
}

/** `segments/0000002b.seg`, relative to the store. */
export function segmentFile(number: number): string {
  assert(isFileNumber(number), 'this is not the number of a segment');
  return `${SEGMENTS}/${number.toString(16).padStart(8, '0')}.seg`;
}

export function parseSegmentName(name: string): number | null {
  const match = /^([0-9a-f]{8})\.seg$/.exec(name);
  return match ? Number.parseInt(match[1]!, 16) : null;
}

export const segmentBytes = (entries: number): number =>
  HEADER_BYTES + entries * SEGMENT_ENTRY_BYTES + CHECKSUM_BYTES;

function header({ number, entries }: SegmentRow): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC, 'latin1');
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(number, 12);
  bytes.writeUInt32LE(entries, 16);
  return bytes;
}

/** A segment that was written; `fd` holds the file's lock. */
export interface WrittenSegment {
  readonly row: SegmentRow;
  readonly fd: number;
}

/**
 * Writes a segment: `parts` one after the other are its sorted entries. Null, and no file, when there are none. When
 * it fails there is no file. Errors: those of the system.
 */
export function writeSegment(
  ops: PageOps,
  dir: string,
  number: number,
  parts: Iterable<Uint8Array>,
): WrittenSegment | null {
  const path = at(dir, segmentFile(number));
  const fd = createOverLeft(path);
  try {
    let position = HEADER_BYTES;
    const write = (bytes: Uint8Array): void => {
      for (let done = 0; done < bytes.length; )
        done += writeSync(fd, bytes, done, bytes.length - done, position + done);
      position += bytes.length;
    };
    for (const part of parts) write(part);
    const row = { number, entries: (position - HEADER_BYTES) / SEGMENT_ENTRY_BYTES };
    if (row.entries === 0) {
      removeIfThere(path);
      closeSync(fd);
      return null;
    }
    writeSync(fd, header(row), 0, HEADER_BYTES, 0);
    write(checksumOf(ops, fd, position));
    fsyncSync(fd);
    return { row, fd };
  } catch (error) {
    removeIfThere(path);
    closeSync(fd);
    throw error;
  }
}

/**
 * The number is the caller's alone in this index, so a file that has it already is of a repair that was cut short before its
 * index took the place of this one.
 */
function createOverLeft(path: string): number {
  try {
    return createLocked(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || unlinkUnlessLocked(path) === null) throw error;
    return createLocked(path);
  }
}

/** XXH64 of everything before the checksum. */
function checksumOf(ops: PageOps, fd: number, length: number): Uint8Array {
  const checksum = new Uint8Array(CHECKSUM_BYTES);
  const bytes = mapFile(fd, length);
  ops.checksum(bytes, 0, length, 0, 0, checksum);
  unmapFile(bytes);
  return checksum;
}

/** Maps a segment; null when it is not there or is not what the index lists. */
export function mapSegment(dir: string, row: SegmentRow): Segment | null {
  try {
    const opened = new StoreFile(dir, segmentFile(row.number));
    try {
      return mapOpenSegment(opened, row);
    } finally {
      opened.close();
    }
  } catch {
    return null; // merged by another process, or lost: hints all the same
  }
}

function mapOpenSegment(opened: StoreFile, row: SegmentRow): Segment | null {
  const { entries } = row;
  if (entries < 1 || entries > MAX_SEGMENT_ENTRIES || opened.sizeBytes !== segmentBytes(entries)) return null;
  if (!opened.read(0, HEADER_BYTES).equals(header(row))) return null;
  const bytes = mapFile(opened.fd, HEADER_BYTES + entries * SEGMENT_ENTRY_BYTES);
  return new Segment(new Uint32Array(bytes.buffer, HEADER_BYTES, (entries * SEGMENT_ENTRY_BYTES) / 4));
}

/** Whether a file's header is that of the segment of this number. */
export function saysSegment(dir: string, number: number): boolean {
  try {
    const opened = new StoreFile(dir, segmentFile(number));
    try {
      const found = opened.read(0, HEADER_BYTES);
      return found.equals(header({ number, entries: found.readUInt32LE(16) }));
    } finally {
      opened.close();
    }
  } catch (error) {
    if (error instanceof DamageError) return false;
    throw error;
  }
}

/** Reads all of a segment and finds what is wrong with it. Errors: those of the system. */
export function verifySegment(ops: PageOps, dir: string, row: SegmentRow): DamageError | null {
  const file = segmentFile(row.number);
  const missing = new DamageError(file, null, 'the segment is missing, or not the one that the index lists');
  let segment: Segment | null;
  let opened: StoreFile | null = null;
  try {
    opened = new StoreFile(dir, file);
    segment = mapOpenSegment(opened, row);
    if (!segment) return missing;
    const end = segmentBytes(row.entries) - CHECKSUM_BYTES;
    if (!ops.equal(opened.read(end, CHECKSUM_BYTES), 0, checksumOf(ops, opened.fd, end), 0, CHECKSUM_BYTES))
      return new DamageError(file, null, 'the segment does not match its checksum');
  } catch (error) {
    if (error instanceof MissingFileError) return missing;
    if (error instanceof DamageError) return error;
    throw error;
  } finally {
    opened?.close();
  }
  const wrong = segment.firstDisorder();
  unmapFile(segment.words);
  return wrong < 0
    ? null
    : new DamageError(file, HEADER_BYTES + wrong * SEGMENT_ENTRY_BYTES, 'the fingerprints do not ascend');
}
