/**
 * How a rebuilt index takes the place of the old one (docs/format.md, "Repair").
 *
 * Invariants: at no moment is there a database beside a log that is not its own, nor an old database without its log;
 * a power cut leaves the old index with its log, or no index and a complete new one that the next open puts in place.
 * Each step is durable before the next begins. All of it happens with `index.lock` held exclusively.
 */
import { closeSync, fsyncSync, openSync, renameSync, statSync } from 'node:fs';
import { at, DATABASE, fsyncDirectory, INDEX_LOCK, removeIfThere } from '../disk/layout.js';
import { requireLocksToWrite } from '../disk/locking.js';
import { StoreLock } from '../disk/store-lock.js';

/** Under this name an index is built. */
export const NEW_DATABASE = 'store.db.new';
/** Under this name it is complete. */
const NEXT_DATABASE = 'store.db.next';
const OLD_DATABASE = 'store.db.old';
const BESIDE = ['-wal', '-shm', '-journal'];

const isThere = (dir: string, file: string): boolean =>
  statSync(at(dir, file), { throwIfNoEntry: false }) !== undefined;

/** Puts the index that was built as {@link NEW_DATABASE}, closed and with no log, in the place of the present one. */
export function replaceIndex(dir: string): void {
  fsyncFile(at(dir, NEW_DATABASE));
  renameSync(at(dir, NEW_DATABASE), at(dir, NEXT_DATABASE));
  fsyncDirectory(dir);
  if (isThere(dir, DATABASE)) renameSync(at(dir, DATABASE), at(dir, OLD_DATABASE));
  fsyncDirectory(dir);
  putInPlace(dir);
}

/** From here on there is no store.db: what lies beside it is nobody's, and SQLite would replay it into the next one. */
function putInPlace(dir: string): void {
  for (const suffix of BESIDE) removeIfThere(at(dir, DATABASE + suffix));
  fsyncDirectory(dir);
  renameSync(at(dir, NEXT_DATABASE), at(dir, DATABASE));
  fsyncDirectory(dir);
  removeReplaced(dir);
}

/** Finishes a replacement that was cut short when the old index had gone already. Errors: STORE_BUSY. */
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

/** Removes what a replacement leaves, or left when it was cut short. There is a store.db, so nothing else is needed. */
export function removeReplaced(dir: string): void {
  for (const file of [NEW_DATABASE, NEXT_DATABASE, OLD_DATABASE])
    for (const suffix of ['', ...BESIDE]) removeIfThere(at(dir, file + suffix));
}

/** Removes an index that was being built and will not be finished. */
export function removeUnfinished(dir: string): void {
  for (const suffix of ['', ...BESIDE]) {
    try {
      removeIfThere(at(dir, NEW_DATABASE + suffix));
    } catch {
      // The next repair, or gc, removes it; what went wrong before is what is to be told.
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
