/** Calls on plain files that Node does not have: where the data of a sparse file is, and extended attributes. */
import { addon } from './addon.js';

interface FileFunctions {
  nextData(fd: number, offset: number): [number, number] | null;
  copyAttributes(from: number, to: number): void;
}

const native = addon as unknown as FileFunctions;

/**
 * The first bytes at or after `offset` that are not in a hole; null: there are none. Moves the descriptor's position.
 * Errors: SystemError, EINVAL where the file system does not say (lseek(2), SEEK_DATA).
 */
export function nextData(fd: number, offset: number): { begin: number; end: number } | null {
  const range = native.nextData(fd, offset);
  return range && { begin: range[0], end: range[1] };
}

/** Gives the file `to` the access list, label and user attributes of `from`, as far as the caller may (xattr(7)). */
export const copyAttributes = (from: number, to: number): void => native.copyAttributes(from, to);
