/**
 * The index as files, before SQLite opens it: whether it can be written in place, and how it is copied.
 *
 * Invariants:
 * - A database with another hard link, such as a backup made by `cp -al`, is never opened for writing, because SQLite
 *   changes `store.db` in place. The writer first gives the store a copy of its own.
 * - A copy has the bytes of one moment, even while other processes write.
 * - A database that this process has open is never copied: POSIX drops all locks of a process on a file when the
 *   process closes any descriptor of it.
 */
import { createHash } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  lstatSync,
  openSync,
  readSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { loadSqlite } from '../../native/modules.js';
import { at, createOwned, DATABASE, INDEX_LOCK, PACKS, removeIfThere, unlessGone } from '../disk/layout.js';
import { damageOf } from '../disk/store-file.js';
import { StoreLock } from '../disk/store-lock.js';
import { waitAStep } from '../disk/waits.js';
import { NEW_DATABASE, removeUnfinished, replaceIndex } from './index-replacement.js';

/** The files that SQLite writes, by suffix. */
const PARTS = ['', '-wal', '-shm', '-journal'];
/** The files that a copy needs. SQLite creates the shared memory (-shm) again. */
const COPIED_PARTS = ['', '-wal', '-journal'];

/** The longest path that SQLite opens, minus the longest name of a file that it opens in a store. */
const MAX_DIRECTORY_BYTES = 504 - Buffer.byteLength(`/${NEW_DATABASE}`);

/** SQLite limits the resolved path. Parts of the path that do not exist yet count as given. */
function isPathTooLong(dir: string): boolean {
  const unresolved: string[] = [];
  for (let at = resolve(dir); ; at = dirname(at)) {
    try {
      return Buffer.byteLength(join(realpathSync(at), ...unresolved)) > MAX_DIRECTORY_BYTES;
    } catch (error) {
      if (at === dirname(at)) throw error;
      unresolved.unshift(basename(at));
    }
  }
}

/** Call before anything is created or changed. Errors: USAGE. */
export function requireShortPath(dir: string): void {
  if (isPathTooLong(dir))
    throw new LivesnapError(
      'USAGE',
      `the path of the store ${dir} is longer than ${MAX_DIRECTORY_BYTES} bytes`,
      {
        hint: 'SQLite cannot write there. Use a store with a shorter path.',
      },
    );
}

export const notAStore = (dir: string, cause?: unknown): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${dir} is not a livesnap store`, {
    hint: existsSync(at(dir, PACKS))
      ? 'Its index is missing: run livesnap repair to rebuild it.'
      : 'Give the directory of a store with --store.',
    cause,
  });

const find = (dir: string, suffix: string) =>
  lstatSync(at(dir, DATABASE + suffix), { throwIfNoEntry: false });

/** Whether writing to the index would change a file in another directory. */
export const hasOtherLinks = (dir: string): boolean =>
  PARTS.some((suffix) => (find(dir, suffix)?.nlink ?? 0) > 1);

/** Errors: those of access(2), which storeError translates. */
export function requireWritableIndex(dir: string): void {
  const { R_OK, W_OK, X_OK } = constants;
  accessSync(dir, W_OK | X_OK);
  for (const suffix of PARTS) unlessGone(() => accessSync(at(dir, DATABASE + suffix), R_OK | W_OK));
}

/** Whether SQLite can open the index where it is. */
export function canOpenInPlace(dir: string): boolean {
  try {
    requireWritableIndex(dir);
  } catch {
    return false;
  }
  return !isPathTooLong(dir);
}

/**
 * Takes `index.lock` shared for a writer, after making sure that the database has no other link. Errors: STORE_BUSY,
 * and those of the system and of SQLite.
 */
export function lockForWriting(dir: string): StoreLock {
  const lock = StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
  if (!hasOtherLinks(dir)) return lock;
  lock.release();
  makeOwnIndex(dir);
  return StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
}

/** Replaces a database that has other links by a copy, with its log applied. */
function makeOwnIndex(dir: string): void {
  const lock = lockAlone(dir);
  try {
    if (!hasOtherLinks(dir)) return; // another process was faster
    removeUnfinished(dir);
    copyIndex(dir, at(dir, NEW_DATABASE));
    const database = new (loadSqlite())(at(dir, NEW_DATABASE));
    try {
      database.pragma('trusted_schema = OFF');
      database.pragma('wal_checkpoint(TRUNCATE)');
    } finally {
      database.close();
    }
    replaceIndex(dir);
  } catch (error) {
    removeUnfinished(dir);
    throw error;
  } finally {
    lock.release();
  }
}

function lockAlone(dir: string): StoreLock {
  try {
    return StoreLock.acquireSync(dir, 'exclusive', INDEX_LOCK);
  } catch (error) {
    if (!(error instanceof LivesnapError && error.code === 'STORE_BUSY')) throw error;
    throw new LivesnapError(
      'STORE_BUSY',
      `${at(dir, DATABASE)} has another hard link, and another process has it open`,
      {
        hint: 'Try again when the other process has closed the store, or delete the other link.',
        cause: error,
      },
    );
  }
}

const TRIES = 100;
const PIECE_BYTES = 1 << 20;

/**
 * Copies the index and its log to `target`, `target-wal` and so on. Reads the files twice: they are the bytes of one
 * moment only if both readings are equal. Errors: DAMAGED, STORE_BUSY.
 */
export function copyIndex(dir: string, target: string): void {
  for (let tries = 0; tries < TRIES; tries++) {
    const copied = COPIED_PARTS.map((suffix) => copyPart(dir, suffix, target + suffix));
    if (COPIED_PARTS.every((suffix, i) => readPart(dir, suffix) === copied[i])) return;
    for (const suffix of COPIED_PARTS) removeIfThere(target + suffix);
    waitAStep();
  }
  throw new LivesnapError('STORE_BUSY', `the index of the store ${dir} keeps changing while it is copied`, {
    hint: 'Try again when fewer processes write to the store.',
  });
}

/** Returns the digest of the part; null when there is no such part. */
function copyPart(dir: string, suffix: string, target: string): string | null {
  let fd: number | null = null;
  try {
    return readPart(dir, suffix, (bytes) => {
      fd ??= createOwned(target);
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
    });
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** Returns the digest of a part; null when there is none. `take` is called at least once for a part that exists. */
function readPart(dir: string, suffix: string, take?: (bytes: Uint8Array) => void): string | null {
  const file = DATABASE + suffix;
  const hash = createHash('sha256');
  const piece = Buffer.alloc(PIECE_BYTES);
  let fd: number;
  try {
    fd = openSync(at(dir, file), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (suffix !== '' && (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw damageOf(error, file, null) ?? error;
  }
  const read = (position: number): number => {
    try {
      return readSync(fd, piece, 0, piece.length, position);
    } catch (error) {
      throw damageOf(error, file, position) ?? error;
    }
  };
  try {
    for (let position = 0; ; ) {
      const got = read(position);
      if (got > 0 || position === 0) take?.(piece.subarray(0, got));
      if (got === 0) return hash.digest('hex');
      hash.update(piece.subarray(0, got));
      position += got;
    }
  } finally {
    closeSync(fd);
  }
}
