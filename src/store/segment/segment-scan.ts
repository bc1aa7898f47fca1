/**
 * Reads a segment from end to end, to merge it or to check it.
 *
 * Thread: a page Worker.
 *
 * Invariants:
 * - Whatever the size of the segment, only one part of its entries and its filter are in memory.
 * - Entries are unverified until the checksum at the end of the file has been verified.
 */
import type { ChecksumInParts, PageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import { MissingFileError, type StoreFile } from '../disk/store-file.js';
import {
  CHECKSUM_BYTES,
  filterOffset,
  HEADER_BYTES,
  openSegment,
  type SegmentRow,
  segmentBytes,
  segmentFile,
  segmentHeader,
} from './segment-file.js';
import { FilterBuilder, filterBytes } from './segment-filter.js';
import { compareEntries, ENTRY_BYTES, ENTRY_WORDS } from './sorted-entries.js';

const PART_BYTES = 4096 * ENTRY_BYTES;

class SegmentScan {
  readonly #opened: StoreFile;
  readonly #checksum: ChecksumInParts;

  /** Errors: DAMAGED. */
  constructor(
    ops: PageOps,
    dir: string,
    readonly row: SegmentRow,
  ) {
    this.#opened = openSegment(dir, row);
    this.#checksum = ops.checksumInParts();
    this.#checksum.update(segmentHeader(row));
  }

  /** The entries, in parts; each part is valid until the next. */
  *entries(): Generator<Uint32Array> {
    const part = new Uint8Array(PART_BYTES);
    const end = filterOffset(this.row.entries);
    for (let offset = HEADER_BYTES; offset < end; offset += PART_BYTES) {
      const length = Math.min(PART_BYTES, end - offset);
      this.#opened.readInto(part, offset, length);
      this.#checksum.update(part.subarray(0, length));
      yield new Uint32Array(part.buffer, 0, length / 4);
    }
  }

  /** Reads the filter and verifies the checksum; call it after all entries. Errors: DAMAGED. */
  filter(): Buffer {
    const { entries } = this.row;
    const filter = this.#opened.read(filterOffset(entries), filterBytes(entries));
    this.#checksum.update(filter);
    const found = this.#opened.read(segmentBytes(entries) - CHECKSUM_BYTES, CHECKSUM_BYTES);
    if (!found.equals(this.#checksum.end()))
      throw new DamageError(this.#opened.file, null, 'the segment does not match its checksum');
    return filter;
  }

  close(): void {
    this.#opened.close();
  }
}

/**
 * The entries of a segment, in parts; each part is valid until the next.
 * Errors: DAMAGED, after the last part if the checksum is wrong.
 */
export function* readSegment(ops: PageOps, dir: string, row: SegmentRow): Generator<Uint32Array> {
  const scan = new SegmentScan(ops, dir, row);
  try {
    yield* scan.entries();
    scan.filter();
  } finally {
    scan.close();
  }
}

/** The damage of a segment, or null. Errors: those of the system. */
export function verifySegment(ops: PageOps, dir: string, row: SegmentRow): DamageError | null {
  try {
    const scan = new SegmentScan(ops, dir, row);
    try {
      return findDamage(scan);
    } finally {
      scan.close();
    }
  } catch (error) {
    if (error instanceof MissingFileError)
      return new DamageError(segmentFile(row.number), null, 'the segment is missing');
    if (error instanceof DamageError) return error;
    throw error;
  }
}

function findDamage(scan: SegmentScan): DamageError | null {
  const { entries, number } = scan.row;
  const builder = new FilterBuilder(entries);
  const before = new Uint32Array(ENTRY_WORDS);
  let disorderAt: number | null = null;
  let offset = HEADER_BYTES;
  for (const part of scan.entries()) {
    disorderAt ??= firstDisorder(before, part, offset);
    builder.add(part);
    before.set(part.subarray(-ENTRY_WORDS));
    offset += part.byteLength;
  }
  const filter = scan.filter();
  const file = segmentFile(number);
  if (disorderAt !== null) return new DamageError(file, disorderAt, 'the entries do not ascend');
  if (!filter.equals(builder.finish(entries)))
    return new DamageError(file, filterOffset(entries), 'the filter does not match the entries');
  return null;
}

/** File offset of the first entry that is less than the one before it, or null. `before`: the entry before the part. */
function firstDisorder(before: Uint32Array, part: Uint32Array, partOffset: number): number | null {
  if (compareEntries(before, 0, part, 0) > 0) return partOffset;
  for (let at = ENTRY_WORDS; at < part.length; at += ENTRY_WORDS)
    if (compareEntries(part, at - ENTRY_WORDS, part, at) > 0) return partOffset + at * 4;
  return null;
}
