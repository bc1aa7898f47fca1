/**
 * Calls on files that Node does not have: several fsyncs at once, write-back, the data of a sparse file, extended
 * attributes, and sizes of block devices.
 */
import { fsyncSync } from 'node:fs';
import { addon, isAddonBuilt } from './addon.js';

interface FileFunctions {
  syncFiles(fds: Int32Array): void;
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

/**
 * Fsyncs up to eight files at the same time, and waits for all. A journaling file system commits them together, so this
 * takes about as long as one. Without the addon one follows the other. Errors: the system's, of the first that failed.
 */
export function syncFiles(fds: readonly number[]): void {
  if (isAddonBuilt && fds.length > 1) addon<FileFunctions>().syncFiles(Int32Array.from(fds));
  else for (const fd of fds) fsyncSync(fd);
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
