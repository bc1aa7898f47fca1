/** Machines and other programs that write to a file which `put` reads or `get` replaces. */
import { canLock, lockImage } from '../../native/locks.js';

/**
 * Whether another open file may be written to, as a disk image of a machine or of qemu is. If not, none is opened for that
 * until this descriptor is closed. False also where there are no such locks.
 */
export function hasWriter(fd: number): boolean {
  if (!canLock) return false;
  try {
    return !lockImage(fd, 'shared');
  } catch {
    return false; // the file system has no locks
  }
}

export const IN_USE = 'another machine or program may write to it';
