/**
 * The files `segments/NUMBER.seg`: their names and layout (docs/format.md, "Segments"), and how they are mapped to be
 * searched. segment-writer.ts writes them, segment-scan.ts reads all of one.
 *
 * Invariants: written once, fsynced, never changed; locked by their maker until the index lists them. What they say
 * are hints, proven by bytes, so who searches trusts size and header only, and one that is missing or damaged costs
 * room and nothing else.
 */
import assert from 'node:assert/strict';
import { mapFile } from '../../native/mapped-file.js';
import { DamageError } from '../disk/damage.js';
import { FORMAT_VERSION } from '../disk/format-version.js';
import { isFileNumber, SEGMENTS } from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import { Segment } from './fingerprints.js';
import { filterBlocks, filterBytes, SegmentFilter } from './segment-filter.js';
import { ENTRY_BYTES } from './sorted-entries.js';

const MAGIC = 'LIVESNSG';
export const HEADER_BYTES = 32;
export const CHECKSUM_BYTES = 8;
/** One file has at most 1 GiB of entries. */
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

/** Where the filter begins, after header and entries; where there is none, the checksum. */
export const filterOffset = (entries: number): number => HEADER_BYTES + entries * ENTRY_BYTES;

export const segmentBytes = (entries: number): number =>
  filterOffset(entries) + filterBytes(entries) + CHECKSUM_BYTES;

export function segmentHeader({ number, entries }: SegmentRow): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(MAGIC, 'latin1');
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(number, 12);
  bytes.writeUInt32LE(entries, 16);
  bytes.writeUInt32LE(filterBlocks(entries), 20);
  return bytes;
}

/** Opens the file that the index lists. Errors: DAMAGED when it is another, by size or header. */
export function openSegment(dir: string, row: SegmentRow): StoreFile {
  const { entries } = row;
  const opened = new StoreFile(dir, segmentFile(row.number));
  try {
    const isListed =
      entries >= 1 &&
      entries <= MAX_SEGMENT_ENTRIES &&
      opened.sizeBytes === segmentBytes(entries) &&
      opened.read(0, HEADER_BYTES).equals(segmentHeader(row));
    if (isListed) return opened;
  } catch (error) {
    opened.close();
    throw error;
  }
  opened.close();
  throw new DamageError(opened.file, null, 'this is not the segment that the index lists');
}

/** Maps a segment; null when it is not there or is not what the index lists. */
export function mapSegment(dir: string, row: SegmentRow): Segment | null {
  try {
    const opened = openSegment(dir, row);
    try {
      const filterAt = filterOffset(row.entries);
      const length = filterBytes(row.entries);
      const { buffer } = mapFile(opened.fd, filterAt + length);
      return new Segment(
        new Uint32Array(buffer, HEADER_BYTES, (filterAt - HEADER_BYTES) / 4),
        length > 0 ? new SegmentFilter(new Uint32Array(buffer, filterAt, length / 4)) : null,
      );
    } finally {
      opened.close();
    }
  } catch {
    return null; // merged by another process, or lost: hints all the same
  }
}

/** Whether a file's header is that of the segment of this number. */
export function hasSegmentHeader(dir: string, number: number): boolean {
  try {
    const opened = new StoreFile(dir, segmentFile(number));
    try {
      const found = opened.read(0, HEADER_BYTES);
      return found.equals(segmentHeader({ number, entries: found.readUInt32LE(16) }));
    } finally {
      opened.close();
    }
  } catch (error) {
    if (error instanceof DamageError) return false;
    throw error;
  }
}
