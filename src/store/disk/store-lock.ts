/**
 * The locks of a store, by flock(2), which the kernel releases with the process (docs/format.md, "Locks").
 *
 * `lock`: repair holds it exclusively, whatever reads or writes the store shares it while it does. `index.lock`:
 * whoever has store.db open shares it; repair, which replaces that file, holds it exclusively. `packs/`: held
 * exclusively by gc, against another gc. `tags/`: held exclusively while tags' files are brought in line with the
 * index. Single files have locks of their own: file-locks.ts.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { at, FILE_MODE, giveToOwner, type INDEX_LOCK, LOCK, PACKS, storeError, TAGS } from './layout.js';
import { canLock, tryLock } from './locking.js';
import { STEP_MS, sleepAStep, waitAStep } from './waits.js';

type Mode = 'shared' | 'exclusive';
type LockFile = typeof LOCK | typeof INDEX_LOCK | typeof PACKS | typeof TAGS;
/** How long a lock is waited for. Repair does not wait for a machine that may run for days. */
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

  /** Errors: STORE_BUSY. */
  static async acquire(dir: string, mode: Mode, file: LockFile = LOCK): Promise<StoreLock> {
    const lock = new StoreLock(dir, file);
    for (let waitedMs = 0; !lock.#try(mode); waitedMs += STEP_MS) {
      if (waitedMs >= waitMs(mode, file)) throw lock.#busy(mode);
      await sleepAStep().catch((error) => lock.#giveUp(error));
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
        lock.#giveUp(error);
      }
    }
    return lock;
  }

  #giveUp(error: unknown): never {
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
          ? `another gc is at work in the store ${this.dir}`
          : `the store ${this.dir} is in use`,
      { hint: 'Try again when it is done.' },
    );
  }

  #closed = false;

  release(): void {
    if (!this.#closed && this.#fd >= 0) closeSync(this.#fd);
    this.#closed = true;
  }
}

/** Errors that tell of a medium that cannot be written: a file that is missing there cannot be made by anybody. */
const UNWRITABLE = new Set(['EROFS', 'EACCES', 'EPERM']);

/** What open says of a link or a pipe, and of what is no directory where one must be. */
const STRANGE = new Set(['ELOOP', 'ENXIO', 'ENOTDIR']);

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
    throw STRANGE.has(code) ? notOurs(path) : storeError(dir, error);
  }
  if (isFolder || fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw notOurs(path);
}

/** Follows no link and waits for nobody: a store may come from anywhere. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Whether there is no file of this name. A directory that may not be searched does not say. */
function isMissing(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/** A lock file may be there, and lockable, where none could be made. */
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

const notOurs = (path: string): LivesnapError =>
  new LivesnapError('NOT_A_STORE', `${path} is not what a store has there`, {
    hint: 'Files and folders of a store are its own, and no links: find out who put this one there.',
  });
