/** Kernel file locks: flock(2) and fcntl(2). The kernel releases them when the process dies. */
import { addon, isAddonBuilt, missingAddon } from './addon.js';

interface LockFunctions {
  tryLock(fd: number, exclusive: boolean): boolean;
  lockBytes(fd: number, exclusive: boolean, start: number, length: number): boolean;
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
 * Takes an open file description lock on bytes of a file. False when another open file has a conflicting lock on one of
 * them. `length` 0: to the end of the file. Errors: SystemError.
 */
export const lockBytes = (
  fd: number,
  mode: 'shared' | 'exclusive',
  { start = 0, length = 0 }: { start?: number; length?: number } = {},
): boolean => addon<LockFunctions>().lockBytes(fd, mode === 'exclusive', start, length);

/** qemu locks this byte of an image while it may write to the image (block/file-posix.c: 100 + BLK_PERM_WRITE). */
const QEMU_WRITER_BYTE = 101;

/**
 * Locks a disk image, as other virtual machine monitors do: `shared` to read it, `exclusive` to write to it. False when
 * another machine or program has it open to write, or to read if it is to be written to. Errors: SystemError.
 */
export function lockImage(fd: number, mode: 'shared' | 'exclusive'): boolean {
  if (!lockBytes(fd, mode)) return false;
  if (mode === 'exclusive') return true;
  // qemu's locks for reading and for writing are both shared. They are for bytes from 100 on, and the kernel makes one of
  // neighbours; ours begin at byte 0.
  return (addon<LockFunctions>().lockAt(fd, QEMU_WRITER_BYTE) ?? 0) === 0;
}
