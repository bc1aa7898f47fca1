/** Writing a segment, in a page Worker. Invariant: it is whole and fsynced when it is answered, or there is no file. */
import { closeSync, fsyncSync, readSync, writeSync } from 'node:fs';
import type { PageOps } from '../../native/pages.js';
import { createLocked, unlinkUnlessLocked } from '../disk/file-locks.js';
import { at, removeIfThere } from '../disk/layout.js';
import { HEADER_BYTES, type SegmentRow, segmentFile, segmentHeader } from './segment-file.js';
import { FilterBuilder } from './segment-filter.js';
import { ENTRY_BYTES } from './sorted-entries.js';

/** A segment that was written; `fd` holds the file's lock. */
export interface WrittenSegment {
  readonly row: SegmentRow;
  readonly fd: number;
}

/**
 * Writes a segment: `parts` one after the other are its sorted entries, at most `mostEntries`. Null, and no file, when
 * there are none. When it fails there is no file. Errors: those of the system, and of `parts`.
 */
export function writeSegment(
  ops: PageOps,
  dir: string,
  number: number,
  parts: Iterable<Uint32Array>,
  mostEntries: number,
): WrittenSegment | null {
  const path = at(dir, segmentFile(number));
  const fd = createOverLeft(path);
  try {
    const filter = new FilterBuilder(mostEntries);
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

/** Of the file's first `length` bytes: its header, which they begin with, is known last. */
function checksumOf(ops: PageOps, fd: number, length: number): Uint8Array {
  const checksum = ops.checksumInParts();
  const part = new Uint8Array(Math.min(length, 1 << 18));
  for (let offset = 0; offset < length; ) {
    const got = readSync(fd, part, 0, Math.min(part.length, length - offset), offset);
    if (got === 0) throw new Error('a segment is shorter than what was written');
    checksum.update(part.subarray(0, got));
    offset += got;
  }
  return checksum.end();
}
