/**
 * Locks on single files of a store, by flock(2), between sessions and gc (docs/format.md, "Locks").
 *
 * Rules:
 * - A session that needs a file holds its lock shared.
 * - A session that has made a file and not committed it holds its lock exclusively.
 * - A file is unlinked only under an exclusive lock that was taken without waiting.
 *
 * Invariants:
 * - A lock counts only if the name still leads to the file once the lock is held. The link count does not show that: a
 *   backup of hard links adds a link.
 * - Anything but a regular file was not put there by livesnap: it counts as missing, and is never locked or unlinked.
 * - A file that the disk cannot open may be in use, so it is left alone. Reading it is an error.
 * - The kernel releases the locks with the process.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { createOwned } from './layout.js';
import { tryLock } from './locking.js';
import { isUnreadable } from './store-file.js';
import { waitAStep } from './waits.js';

/** How often locking is tried again while gc tests the lock. */
const TRIES = 1000;

/** Whether the path names the open file. Call it while the lock is held. */
export function isNameOf(path: string, fd: number): boolean {
  // Inode numbers have up to 64 bits.
  const named = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  const opened = fstatSync(fd, { bigint: true });
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

/** Errors of open for a missing file, a link and a socket. */
const NO_FILE = new Set(['ENOENT', 'ELOOP', 'ENXIO']);

function openIfExists(path: string): number | 'gone' | 'unreadable' {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (NO_FILE.has((error as NodeJS.ErrnoException).code ?? '')) return 'gone';
    if (isUnreadable(error)) return 'unreadable';
    throw error;
  }
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  return 'gone';
}

/**
 * Creates a file and locks it exclusively, so that gc does not take it for the remains of a crash. The lock lasts until
 * the descriptor is closed. Errors: STORE_BUSY, and those of the system (EEXIST).
 */
export function createLocked(path: string): number {
  for (let tries = 0; tries < TRIES; tries++) {
    const fd = createOwned(path);
    if (lockNew(path, fd)) return fd;
    closeSync(fd); // gc was faster than the lock and removed the file
  }
  throw cannotLock(path);
}

const cannotLock = (path: string): LivesnapError =>
  new LivesnapError('STORE_BUSY', `cannot lock ${path}`, { hint: 'Try again later.' });

/** Locks a new file exclusively; false when its name is gone. Closes the file when it throws. */
function lockNew(path: string, fd: number): boolean {
  try {
    for (let tries = 0; tries < TRIES; tries++) {
      if (tryLock(fd, 'exclusive')) return isNameOf(path, fd);
      waitAStep(); // gc is testing the lock
    }
    throw cannotLock(path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Opens a file and locks it shared, so that it is not deleted until the descriptor is closed. Null when it is missing, or
 * is being created or deleted.
 */
export const openShared = (path: string): number | null => openWithLock(path, 'shared');

/** Opens a file and locks it exclusively; null when it is missing or in use. */
export const openExclusive = (path: string): number | null => openWithLock(path, 'exclusive');

function openWithLock(path: string, mode: 'shared' | 'exclusive'): number | null {
  const fd = openIfExists(path);
  if (typeof fd === 'string') return null;
  try {
    if (tryLock(fd, mode) && isNameOf(path, fd)) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return null;
}

/** Whether sessions hold the lock of a file (`shared`), its creator does (`exclusive`), or nobody does (`free`). */
export function lockState(path: string): 'free' | 'shared' | 'exclusive' | 'gone' | 'unreadable' {
  const fd = openIfExists(path);
  if (typeof fd === 'string') return fd;
  try {
    const state = tryLock(fd, 'exclusive') ? 'free' : tryLock(fd, 'shared') ? 'shared' : 'exclusive';
    return isNameOf(path, fd) ? state : 'gone';
  } finally {
    closeSync(fd);
  }
}

/** Whether a regular file of this name can be opened. */
export function isReadableFile(path: string): boolean {
  const fd = openIfExists(path);
  if (typeof fd === 'number') closeSync(fd);
  return typeof fd === 'number';
}

/**
 * Unlinks a file unless it is in use. `isWanted` is called under the lock. Returns the size of the file, or null when it
 * stays or was missing.
 */
export function unlinkUnlessLocked(path: string, isWanted: () => boolean = () => false): number | null {
  const fd = openExclusive(path);
  if (fd === null) return null;
  try {
    if (isWanted()) return null;
    const { size } = fstatSync(fd);
    unlinkSync(path);
    return size;
  } finally {
    closeSync(fd);
  }
}
