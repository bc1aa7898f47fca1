/** Kernel file locks: flock(2) and fcntl(2). The kernel releases them when the process dies. */
import { addon, isAddonBuilt, missingAddon } from './addon.js';

interface LockFunctions {
  tryLock(fd: number, exclusive: boolean): boolean;
  lockWholeFile(fd: number, exclusive: boolean): boolean;
  lockAt(fd: number, offset: number): number | null;
}

/** False where the addon is not built: Node itself has no file locks. */
export const canLock: boolean = isAddonBuilt;

/** To be called before anything is made that is of no use without locks. Errors: SYSTEM. */
export function requireLocks(): void {
  if (!canLock) throw missingAddon();
}

/**
 * Takes a shared or exclusive lock without waiting. False when another open file has a conflicting lock.
 * Errors: SYSTEM.
 */
export const tryLock = (fd: number, mode: 'shared' | 'exclusive'): boolean =>
  addon<LockFunctions>().tryLock(fd, mode === 'exclusive');

/**
 * Takes an open file description lock on all bytes of a file, as other virtual machine monitors do for disk images. False
 * when another open file has a conflicting lock on any byte. Errors: SystemError.
 */
export const lockWholeFile = (fd: number, mode: 'shared' | 'exclusive'): boolean =>
  addon<LockFunctions>().lockWholeFile(fd, mode === 'exclusive');

/**
 * The first byte of an open file description lock that another open file has and that covers this byte; null if there is
 * none. Errors: SystemError.
 */
export const lockAt = (fd: number, offset: number): number | null =>
  addon<LockFunctions>().lockAt(fd, offset);
