/**
 * Files mapped for reading.
 *
 * Invariant: a page that cannot be read (a bad sector, a file that was truncated) reads as zeros; it does not end the
 * process. So a mapping is only for data whose errors do no harm.
 *
 * Without the addon the file is read into memory instead.
 */
import { readSync } from 'node:fs';
import { addon, isAddonBuilt } from './addon.js';

interface MappingFunctions {
  mapFile(fd: number, length: number): ArrayBuffer;
  unmapFile(mapped: ArrayBuffer): void;
}

/** Unmaps now what {@link mapFile} returned; its views are empty afterwards. */
export function unmapFile({ buffer }: { buffer: ArrayBufferLike }): void {
  if (isAddonBuilt) addon<MappingFunctions>().unmapFile(buffer as ArrayBuffer);
}

/**
 * The first `length` bytes of a file, for reading only. They are unmapped when they are garbage-collected.
 * Errors: SYSTEM.
 */
export const mapFile = (fd: number, length: number): Uint8Array =>
  isAddonBuilt ? new Uint8Array(addon<MappingFunctions>().mapFile(fd, length)) : readWhole(fd, length);

/** What a file that ends early lacks stays zero, as in a mapping. */
function readWhole(fd: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const count = readSync(fd, bytes, done, Math.min(length - done, 2 ** 30), done);
    if (count === 0) break;
    done += count;
  }
  return bytes;
}
