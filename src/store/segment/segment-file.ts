/**
 * The files `segments/NUMBER.seg`: their names, their layout and how they are opened (docs/format.md, "Segments").
 * segment-writer.ts writes a segment, segment-scan.ts reads one from end to end, segment-probe.ts and fingerprints.ts
 * search one.
 *
 * Invariants:
 * - A segment is written once, fsynced, and never changed. Its writer holds its lock until the index lists it.
 * - Its entries are hints, so a search verifies size and header only. A missing or damaged segment costs space, because
 *   pages are stored again, and nothing else.
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
/** 1 GiB of entries. */
export const MAX_SEGMENT_ENTRIES = 1 << 26;

/** A segment's row of the index. */
export interface SegmentRow {
  /** Packs and segments are numbered together. A newer segment has a higher number. */
  readonly number: number;
  readonly entries: number;
}

/** `segments/0000002b.seg`, relative to the store. */
export function segmentFile(number: number): string {
  assert(isFileNumber(number), 'a segment has a file number');
  return `${SEGMENTS}/${number.toString(16).padStart(8, '0')}.seg`;
}

export function parseSegmentName(name: string): number | null {
  const match = /^([0-9a-f]{8})\.seg$/.exec(name);
  return match ? Number.parseInt(match[1]!, 16) : null;
}

/** Where the filter begins, after header and entries. A segment without a filter has its checksum there. */
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

/** Opens a segment that the index lists. Errors: DAMAGED when size or header differ from the row. */
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

/** Maps a segment to be searched; null when it is missing or differs from its row. */
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
    return null; // merged by another process meanwhile, or damaged: its entries are only hints
  }
}

/** Whether the file of a segment has the header of a segment with this number. */
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
