/**
 * Tells whether this process can lock the files of a store. Without the addon it cannot. Then stores are read without
 * locks, and only a store that no other process knows, such as an unfinished export, is written.
 */
import { LivesnapError } from '../../errors.js';
import { canLock, requireLocks, tryLock as tryKernelLock } from '../../native/locks.js';
import { note } from '../../notes.js';

export { canLock };

/** As flock(2) without waiting. Without the addon every lock counts as taken. */
export const tryLock = (fd: number, mode: 'shared' | 'exclusive'): boolean =>
  !canLock || tryKernelLock(fd, mode);

/** To be called before a store that others may use is read. */
export function noteMissingLocks(): void {
  if (!canLock)
    note('locks', 'the addon is not built: the store is read without locks; do not write to it meanwhile');
}

/** To be called before a store that others may use is changed. Errors: READ_ONLY. */
export function requireLocksToWrite(dir: string): void {
  try {
    requireLocks();
  } catch (error) {
    const { message, hint } = error as LivesnapError;
    throw new LivesnapError('READ_ONLY', `the store ${dir} can only be read: ${message}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    });
  }
}
