/** Calls on files that Node does not have: write-back, the data of a sparse file, extended attributes, and sizes of block devices. */
import { addon, isAddonBuilt } from './addon.js';

interface FileFunctions {
  nextData(fd: number, offset: number): [number, number] | null;
  startWriteback(fd: number, offset: number, length: number): void;
  copyAttributes(from: number, to: number): void;
  blockDeviceBytes(fd: number): number;
}

/**
 * The first range of data at or after `offset`; null when only holes follow. Moves the descriptor's position.
 * Errors: SystemError, with EINVAL where the file system does not support it (lseek(2), SEEK_DATA).
 */
export function nextData(fd: number, offset: number): { begin: number; end: number } | null {
  const range = addon<FileFunctions>().nextData(fd, offset);
  return range && { begin: range[0], end: range[1] };
}

/** Has the kernel begin to write a range to the disk, which promises nothing. Without the addon it does nothing. */
export function startWriteback(fd: number, offset: number, length: number): void {
  if (isAddonBuilt) addon<FileFunctions>().startWriteback(fd, offset, length);
}

/**
 * Gives the file `to` the access list, label and user attributes of `from`, as far as the caller may (xattr(7)).
 * Without the addon it does nothing.
 */
export function copyAttributes(from: number, to: number): void {
  if (isAddonBuilt) addon<FileFunctions>().copyAttributes(from, to);
}

/** The size of an open block device. Errors: SystemError. */
export const blockDeviceBytes = (fd: number): number => addon<FileFunctions>().blockDeviceBytes(fd);
