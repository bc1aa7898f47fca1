/** Kernel file locks (flock(2)), released by the kernel when the process dies. */
import { addon } from './addon.js';

interface Locks {
  tryLock(fd: number, exclusive: boolean): boolean;
}

const native = addon as unknown as Locks;

/** Takes a shared or exclusive lock without waiting; false when another open file holds a conflicting one. */
export const tryLock = (fd: number, mode: 'shared' | 'exclusive'): boolean =>
  native.tryLock(fd, mode === 'exclusive');
