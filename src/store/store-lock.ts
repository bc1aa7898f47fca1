/**
 * The locks of a store, by flock(2), which the kernel releases with the process (docs/format.md, "Locks").
 *
 * `lock`: repair holds it exclusively, whatever reads or writes the store shares it while it does. `index.lock`:
 * whoever has store.db open shares it; repair, which replaces that file, holds it exclusively. `packs/`: held
 * exclusively by gc, against another gc. `tags/`: held exclusively while tags' files are brought in line with the
 * index. Single files have locks of their own: file-locks.ts.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../errors.js';
import { tryLock } from '../native/locks.js';
import { at, FILE_MODE, type INDEX_LOCK, LOCK, type PACKS, storeError, type TAGS } from './layout.js';

type Mode = 'shared' | 'exclusive';
type LockFile = typeof LOCK | typeof INDEX_LOCK | typeof PACKS | typeof TAGS;
/** How long a lock is waited for. Repair does not wait for a machine that may run for days. */
const waitMs = (mode: Mode, file: LockFile): number =>
  mode === 'exclusive' && (file === 'lock' || file === 'index.lock') ? 2_000 : 60_000;
const STEP_MS = 10;

export class StoreLock {
  /** -1: the store has no lock file and cannot be given one; then nobody else writes here either. */
  readonly #fd: number;
  #held = false;

  private constructor(
    readonly dir: string,
    readonly file: LockFile,
  ) {
    this.#fd = openLockFile(dir, file);
  }

  /** Errors: STORE_BUSY. */
  static async acquire(dir: string, mode: Mode, file: LockFile = LOCK): Promise<StoreLock> {
    const lock = new StoreLock(dir, file);
    for (let waitedMs = 0; !lock.#try(mode); waitedMs += STEP_MS) {
      if (waitedMs >= waitMs(mode, file)) throw lock.#busy(mode);
      await sleep(STEP_MS);
    }
    return lock;
  }

  /** As {@link acquire}, blocking the thread. */
  static acquireSync(dir: string, mode: Mode, file: LockFile = LOCK): StoreLock {
    const lock = new StoreLock(dir, file);
    const cell = new Int32Array(new SharedArrayBuffer(4));
    for (let waitedMs = 0; !lock.#try(mode); waitedMs += STEP_MS) {
      if (waitedMs >= waitMs(mode, file)) throw lock.#busy(mode);
      Atomics.wait(cell, 0, 0, STEP_MS);
    }
    return lock;
  }

  #try(mode: Mode): boolean {
    this.#held = this.#fd < 0 || tryLock(this.#fd, mode);
    return this.#held;
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

/** -1: see {@link StoreLock}. Errors: NO_SPACE, SYSTEM. */
function openLockFile(dir: string, file: LockFile): number {
  const path = at(dir, file);
  let first: NodeJS.ErrnoException;
  try {
    return openSync(path, constants.O_RDONLY | constants.O_CREAT, FILE_MODE);
  } catch (error) {
    first = error as NodeJS.ErrnoException; // the file, or directory, may be there all the same
  }
  try {
    return openSync(path, constants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && UNWRITABLE.has(first.code ?? '')) return -1;
    throw storeError(dir, first);
  }
}
