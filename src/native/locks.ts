/** Kernel file locks (flock(2)). The kernel releases them when the process dies. */
import { addon, isAddonBuilt, missingAddon } from './addon.js';

interface LockFunctions {
  tryLock(fd: number, exclusive: boolean): boolean;
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
