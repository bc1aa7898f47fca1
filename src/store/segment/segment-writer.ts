/**
 * Writes a segment (docs/format.md, "Segments").
 *
 * Thread: a page Worker.
 *
 * Invariant: the file is complete when `writeSegment` returns it. When it fails there is no file.
 */
import { closeSync, fsyncSync, readSync, writeSync } from 'node:fs';
import type { PageOps } from '../../native/pages.js';
import { createLocked, unlinkUnlessLocked } from '../disk/file-locks.js';
import { at, removeIfThere } from '../disk/layout.js';
import { HEADER_BYTES, type SegmentRow, segmentFile, segmentHeader } from './segment-file.js';
import { FilterBuilder } from './segment-filter.js';
import { ENTRY_BYTES } from './sorted-entries.js';

/** A new segment. `fd` holds the file's lock; the caller closes it. */
export interface WrittenSegment {
  readonly row: SegmentRow;
  readonly fd: number;
}

/**
 * Writes a segment, and fsyncs it unless the caller does that (`sync`). `parts`: its sorted entries, at most
 * `maxEntries`. Returns null, and leaves no file, if there are none. Errors: those of the system, and of `parts`.
 */
export function writeSegment(
  ops: PageOps,
  dir: string,
  number: number,
  parts: Iterable<Uint32Array>,
  maxEntries: number,
  { sync = true } = {},
): WrittenSegment | null {
  const path = at(dir, segmentFile(number));
  const fd = createOrReplace(path);
  try {
    const filter = new FilterBuilder(maxEntries);
    let position = HEADER_BYTES;
    const write = (bytes: Uint8Array): void => {
      for (let done = 0; done < bytes.length; )
        done += writeSync(fd, bytes, done, bytes.length - done, position + done);
      position += bytes.length;
    };
    for (const part of parts) {
      filter.add(part);
      write(new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
    }
    const row = { number, entries: (position - HEADER_BYTES) / ENTRY_BYTES };
    if (row.entries === 0) {
      removeIfThere(path);
      closeSync(fd);
      return null;
    }
    write(filter.finish(row.entries));
    writeSync(fd, segmentHeader(row), 0, HEADER_BYTES, 0);
    write(checksumOf(ops, fd, position));
    if (sync) fsyncSync(fd);
    return { row, fd };
  } catch (error) {
    removeIfThere(path);
    closeSync(fd);
    throw error;
  }
}

/**
 * Creates the file. The index gives a number once, so a file that has it already was left by a repair that was
 * interrupted before its index replaced this one. It is deleted unless it is locked.
 */
function createOrReplace(path: string): number {
  try {
    return createLocked(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || unlinkUnlessLocked(path) === null) throw error;
    return createLocked(path);
  }
}

/** The checksum of the file's first `length` bytes. They are read back because the header was written last. */
function checksumOf(ops: PageOps, fd: number, length: number): Uint8Array {
  const checksum = ops.checksumInParts();
  const part = new Uint8Array(Math.min(length, 1 << 18));
  for (let offset = 0; offset < length; ) {
    const got = readSync(fd, part, 0, Math.min(part.length, length - offset), offset);
    if (got === 0) throw new Error('the file of a segment is shorter than what was written to it');
    checksum.update(part.subarray(0, got));
    offset += got;
  }
  return checksum.end();
}
