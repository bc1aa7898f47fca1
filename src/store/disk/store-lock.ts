/**
 * The locks of a whole store, by flock(2) (docs/format.md, "Locks"). Single files have locks of their own: file-locks.ts.
 *
 * - `lock`: shared while the store is read or written; exclusive for repair.
 * - `index.lock`: shared while a process has store.db open; exclusive for repair, which replaces store.db.
 * - `packs/`: exclusive for gc, against another gc.
 * - `tags/`: exclusive while tag files are made to agree with the index.
 *
 * The kernel releases the locks with the process.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { at, FILE_MODE, giveToOwner, type INDEX_LOCK, LOCK, PACKS, storeError, TAGS } from './layout.js';
import { canLock, tryLock } from './locking.js';
import { STEP_MS, sleepAStep, waitAStep } from './waits.js';

type Mode = 'shared' | 'exclusive';
type LockFile = typeof LOCK | typeof INDEX_LOCK | typeof PACKS | typeof TAGS;
/** How long to wait for a lock. Repair does not wait for a machine, which may run for days. */
const waitMs = (mode: Mode, file: LockFile): number =>
  mode === 'exclusive' && (file === 'lock' || file === 'index.lock') ? 2_000 : 60_000;

export class StoreLock {
  /**
   * -1: nothing is locked. Either the store has no lock file and none can be made there, so nobody else writes here; or
   * this process cannot lock (locking.ts).
   */
  readonly #fd: number;

  private constructor(
    readonly dir: string,
    readonly file: LockFile,
  ) {
    this.#fd = canLock ? openLockFile(dir, file) : -1;
  }

  /** `signal` ends the wait for another process. Errors: STORE_BUSY, the signal's reason. */
  static async acquire(
    dir: string,
    mode: Mode,
    file: LockFile = LOCK,
    signal?: AbortSignal,
  ): Promise<StoreLock> {
    const lock = new StoreLock(dir, file);
    for (let waitedMs = 0; !lock.#try(mode); waitedMs += STEP_MS) {
      if (waitedMs >= waitMs(mode, file)) throw lock.#busy(mode);
      await sleepAStep(signal).catch((error) => lock.#releaseAndThrow(error));
    }
    return lock;
  }

  /** As {@link acquire}, blocking the thread. */
  static acquireSync(dir: string, mode: Mode, file: LockFile = LOCK): StoreLock {
    const lock = new StoreLock(dir, file);
    for (let waitedMs = 0; !lock.#try(mode); waitedMs += STEP_MS) {
      if (waitedMs >= waitMs(mode, file)) throw lock.#busy(mode);
      try {
        waitAStep();
      } catch (error) {
        lock.#releaseAndThrow(error);
      }
    }
    return lock;
  }

  #releaseAndThrow(error: unknown): never {
    this.release();
    throw error;
  }

  #try(mode: Mode): boolean {
    try {
      return this.#fd < 0 || tryLock(this.#fd, mode);
    } catch (error) {
      this.release();
      throw storeError(this.dir, error);
    }
  }

  #busy(mode: Mode): LivesnapError {
    this.release();
    return new LivesnapError(
      'STORE_BUSY',
      mode === 'shared'
        ? `the store ${this.dir} is being repaired by another process`
        : this.file === 'packs'
          ? `another gc is running in the store ${this.dir}`
          : `the store ${this.dir} is in use`,
      { hint: 'Try again when it has finished.' },
    );
  }

  #closed = false;

  release(): void {
    if (!this.#closed && this.#fd >= 0) closeSync(this.#fd);
    this.#closed = true;
  }
}

/** Errors of a medium that nobody can write: a missing file cannot be created there. */
const UNWRITABLE = new Set(['EROFS', 'EACCES', 'EPERM']);

/** Errors of open for a link or a pipe, and for a file where a directory must be. */
const WRONG_KIND = new Set(['ELOOP', 'ENXIO', 'ENOTDIR']);

/** -1: see {@link StoreLock}. Errors: NOT_A_STORE, NO_PERMISSION, NO_SPACE, SYSTEM. */
function openLockFile(dir: string, file: LockFile): number {
  const path = at(dir, file);
  const isFolder = file === PACKS || file === TAGS;
  let fd: number;
  try {
    fd = isFolder ? openSync(path, READ | constants.O_DIRECTORY) : openOrMake(path);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!isFolder && UNWRITABLE.has(code) && isMissing(path)) return -1;
    throw WRONG_KIND.has(code) ? wrongKind(path) : storeError(dir, error);
  }
  if (isFolder || fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw wrongKind(path);
}

/** Follows no link and does not block: a store may come from anywhere. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Whether no file of this name exists. False when the directory may not be searched. */
function isMissing(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/** Opens an existing lock file first: it can be locked even where none can be created. */
function openOrMake(path: string): number {
  try {
    return openSync(path, READ);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const fd = openSync(path, READ | constants.O_CREAT, FILE_MODE);
    giveToOwner(path, fd);
    return fd;
  }
}

const wrongKind = (path: string): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${path} is a link, or of another kind than in a store`, {
    hint: 'livesnap creates no links in a store. Find out who put this one there.',
  });
