/**
 * Locks on the files of a store, by flock(2), by which sessions and gc keep out of each other's way (docs/format.md,
 * "Locks"): who needs a file shares its lock, who made it and has not committed it holds it alone, and a file is
 * unlinked only under a lock held alone and got without waiting. The kernel releases them with the process.
 *
 * Invariant: a lock counts only when, looked at once it is held, the name still leads to the file. (Its count of links
 * says nothing of that: a backup made of hard links has one of its own.) What is no plain file has none of these names
 * but by somebody else's doing: it is as good as not there, and is never locked or unlinked. Of what the disk cannot
 * open nobody knows who needs it: it is left alone, too, and whoever wants to read it is told.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, unlinkSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { createOwned } from './layout.js';
import { tryLock } from './locking.js';
import { isUnreadable } from './store-file.js';
import { waitAStep } from './waits.js';

/** How often a file that gc is looking at is tried again. */
const TRIES = 1000;

/** Whether the name leads to the file that is open; to be asked while its lock is held. */
function leadsTo(path: string, fd: number): boolean {
  // Inode numbers may have all of 64 bits.
  const named = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  const opened = fstatSync(fd, { bigint: true });
  return named !== undefined && named.ino === opened.ino && named.dev === opened.dev;
}

/** What open says where there is no file: nothing, a link, a socket. */
const NO_FILE = new Set(['ENOENT', 'ELOOP', 'ENXIO']);

function openIfThere(path: string): number | 'gone' | 'unreadable' {
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
 * Makes a file that must not exist yet and locks it alone, so that gc does not take it for one that a crash left.
 * The lock lasts until the descriptor is closed. Errors: STORE_BUSY.
 */
export function createLocked(path: string): number {
  for (let tries = 0; tries < TRIES; tries++) {
    const fd = createOwned(path);
    if (lockOf(path, fd)) return fd;
    closeSync(fd); // a gc that looked at the file was faster than the lock, and took it away
  }
  throw cannotLock(path);
}

const cannotLock = (path: string): LivesnapError =>
  new LivesnapError('STORE_BUSY', `${path} cannot be locked`, { hint: 'Try again later.' });

/** Locks alone a file that was just made; false when its name has gone. Closes it when that fails. */
function lockOf(path: string, fd: number): boolean {
  try {
    for (let tries = 0; tries < TRIES; tries++) {
      if (tryLock(fd, 'exclusive')) return leadsTo(path, fd);
      waitAStep(); // a gc looks at the file
    }
    throw cannotLock(path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Opens a file with its lock shared, so that it keeps its name until the descriptor is closed; null when it is not
 * there, or is just being removed or made.
 */
export const openShared = (path: string): number | null => openWithLock(path, 'shared');

/** Opens a file with its lock held alone; null when it is not there or somebody else needs it. */
export const openExclusive = (path: string): number | null => openWithLock(path, 'exclusive');

function openWithLock(path: string, mode: 'shared' | 'exclusive'): number | null {
  const fd = openIfThere(path);
  if (typeof fd === 'string') return null;
  try {
    if (tryLock(fd, mode) && leadsTo(path, fd)) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return null;
}

/** Whether sessions share the lock of a file (`shared`), its maker holds it (`exclusive`), or nobody (`free`). */
export function lockState(path: string): 'free' | 'shared' | 'exclusive' | 'gone' | 'unreadable' {
  const fd = openIfThere(path);
  if (typeof fd === 'string') return fd;
  try {
    const state = tryLock(fd, 'exclusive') ? 'free' : tryLock(fd, 'shared') ? 'shared' : 'exclusive';
    return leadsTo(path, fd) ? state : 'gone';
  } finally {
    closeSync(fd);
  }
}

/** Whether the name is that of a plain file which can be read, as far as opening it tells. */
export function isReadableFile(path: string): boolean {
  const fd = openIfThere(path);
  if (typeof fd === 'number') closeSync(fd);
  return typeof fd === 'number';
}

/**
 * Unlinks a file unless somebody needs it. `isWanted` is asked once more under the lock. Returns the bytes that it
 * had, or null when it stays (or was not there).
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
