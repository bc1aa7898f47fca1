/**
 * Replaces the index by a rebuilt one (docs/format.md, "Repair").
 *
 * Invariants:
 * - A database is never beside the log of another database, and the old database is never without its log.
 * - After a power cut there is the old index with its log, or no index and a complete new one, which the next open puts
 *   in place.
 * - Each step is durable before the next begins.
 * - The caller holds `index.lock` exclusively.
 */
import { closeSync, fsyncSync, openSync, renameSync, statSync } from 'node:fs';
import { at, DATABASE, fsyncDirectory, INDEX_LOCK, removeIfThere } from '../disk/layout.js';
import { requireLocksToWrite } from '../disk/locking.js';
import { StoreLock } from '../disk/store-lock.js';

/** The name of an index that is being built. */
export const NEW_DATABASE = 'store.db.new';
/** The name of a complete index that is not yet in place. */
const NEXT_DATABASE = 'store.db.next';
const OLD_DATABASE = 'store.db.old';
const BESIDE = ['-wal', '-shm', '-journal'];

const isThere = (dir: string, file: string): boolean =>
  statSync(at(dir, file), { throwIfNoEntry: false }) !== undefined;

/** Replaces the present index by the one built as {@link NEW_DATABASE}, which must be closed and have no log. */
export function replaceIndex(dir: string): void {
  fsyncFile(at(dir, NEW_DATABASE));
  renameSync(at(dir, NEW_DATABASE), at(dir, NEXT_DATABASE));
  fsyncDirectory(dir);
  if (isThere(dir, DATABASE)) renameSync(at(dir, DATABASE), at(dir, OLD_DATABASE));
  fsyncDirectory(dir);
  putInPlace(dir);
}

/** There is no store.db now. SQLite would replay a log that is left into the new one, so the log is deleted first. */
function putInPlace(dir: string): void {
  for (const suffix of BESIDE) removeIfThere(at(dir, DATABASE + suffix));
  fsyncDirectory(dir);
  renameSync(at(dir, NEXT_DATABASE), at(dir, DATABASE));
  fsyncDirectory(dir);
  removeReplaced(dir);
}

/** Completes a replacement that was interrupted after the old index had been moved away. Errors: STORE_BUSY. */
export function finishReplacement(dir: string): void {
  if (isThere(dir, DATABASE) || !isThere(dir, NEXT_DATABASE)) return;
  requireLocksToWrite(dir);
  const locks: StoreLock[] = [];
  try {
    locks.push(StoreLock.acquireSync(dir, 'exclusive'));
    locks.push(StoreLock.acquireSync(dir, 'exclusive', INDEX_LOCK));
    if (!isThere(dir, DATABASE) && isThere(dir, NEXT_DATABASE)) putInPlace(dir);
  } finally {
    for (const lock of locks) lock.release();
  }
}

/**
 * Deletes the other files of a replacement, finished or interrupted. There is a store.db, so none of them is needed.
 */
export function removeReplaced(dir: string): void {
  for (const file of [NEW_DATABASE, NEXT_DATABASE, OLD_DATABASE])
    for (const suffix of ['', ...BESIDE]) removeIfThere(at(dir, file + suffix));
}

/** Deletes an index whose building has failed. */
export function removeUnfinished(dir: string): void {
  for (const suffix of ['', ...BESIDE]) {
    try {
      removeIfThere(at(dir, NEW_DATABASE + suffix));
    } catch {
      // The next repair or gc deletes it. The caller reports the first error.
    }
  }
}

function fsyncFile(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
