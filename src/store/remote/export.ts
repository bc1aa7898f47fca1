/**
 * Exports: a store with exactly one snapshot, in a directory of its own (docs/copy.md). Imports: all snapshots of such
 * a directory.
 *
 * Invariants:
 * - Under its final name an export is complete. It is made in NAME.partial, which an interrupted export leaves and the
 *   next one resumes.
 * - Only the contents of a NAME.partial that has the mark of an export are ever removed.
 * - The mark is durable before anything else but the lock is in NAME.partial.
 * - One export at a time writes to NAME.partial, with or without the addon.
 */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { loadSqlite } from '../../native/modules.js';
import { pageOpsLoaded } from '../../native/pages.js';
import type { CopyResult } from '../copy/copy-result.js';
import {
  fsyncDirectory,
  makeDirectory,
  RESERVE,
  removeIfThere,
  storeError,
  TEMPORARY,
  writeAtomically,
} from '../disk/layout.js';
import { canLock, tryLock } from '../disk/locking.js';
import { sqliteCode } from '../disk/store-error.js';
import { requireShortPath } from '../index/index-files.js';
import { Store } from '../store.js';
import { requireLocal } from './address.js';
import { type CopyRequest, copySnapshots, requireOutside } from './copy.js';
import { operandError, requireParent } from './operand-error.js';
import { requirePlainTree } from './plain-tree.js';

// The entries of NAME.partial:
/** The mark. Contains the ID of the snapshot and a newline. */
const MARK = 'livesnap-export';
/** The store, complete or not. */
const STORE = 'store';
/** A store being removed. Renamed first, so that {@link STORE} is never half removed. */
const DROPPED = 'dropped';
/** Only where the addon is not built: an empty file, for {@link lockBySqlite}. */
const LOCK = 'lock';

/**
 * Errors: USAGE (the target or its .partial exists), NO_SUCH_FILE (its parent is missing), STORE_BUSY (another export), and
 * those of a copy.
 */
export async function exportSnapshot(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { ref: string; to: string },
): Promise<CopyResult> {
  if (request.to === '') throw emptyName();
  const target = resolve(requireLocal(request.to));
  if (target === process.cwd())
    throw new LivesnapError('USAGE', `${target} is the working directory, which an export would replace`, {
      hint: NEW_DIRECTORY,
    });
  requireOutside(resolve(request.storeDir), target);
  requireShortPath(join(`${target}.partial`, STORE)); // first: of a longer path the kernel says less
  requireParent(target);
  requireFree(target);
  await pageOpsLoaded;
  const { fingerprintBits = 64 } = request;
  try {
    const id = withStore(request.storeDir, fingerprintBits, (store) => store.resolve(request.ref));
    const partial = new ExportDirectory(`${target}.partial`);
    try {
      partial.prepare(id, fingerprintBits);
      const made = partial.at(STORE);
      const [result] = await copySnapshots({
        ...request,
        direction: 'to',
        remote: made,
        remoteIsPrivate: true,
        refs: [id],
      });
      removeIfThere(join(made, RESERVE)); // an export is not written to again
      requireFree(target);
      if (existsSync(target)) rmdirSync(target);
      renameSync(made, target);
      fsyncDirectory(dirname(target));
      partial.remove();
      return result!;
    } finally {
      partial.close();
    }
  } catch (error) {
    throw operandError(target, storeError(target, error));
  }
}

/** NAME.partial, locked against other exports. */
class ExportDirectory {
  readonly #fd: number;
  #sqliteLock: { close(): void } | null = null;

  /** Errors: USAGE, STORE_BUSY. */
  constructor(readonly dir: string) {
    if (!lstatSync(dir, { throwIfNoEntry: false })) makeDirectory(dir);
    if (!lstatSync(dir).isDirectory()) throw notAnExport(dir);
    this.#fd = openSync(dir, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      if (this.#lock() && fstatSync(this.#fd).nlink > 0) return;
    } catch (error) {
      this.close();
      throw error;
    }
    this.close();
    throw new LivesnapError('STORE_BUSY', `another export is writing to ${dir}`, {
      hint: 'Try again when it has finished.',
    });
  }

  /** False: another export has the lock. */
  #lock(): boolean {
    if (canLock) return tryLock(this.#fd, 'exclusive');
    this.#entries(); // first: nothing is created in a directory that is not of an export
    this.#sqliteLock = lockBySqlite(this.at(LOCK));
    return this.#sqliteLock !== null;
  }

  at(name: string): string {
    return join(this.dir, name);
  }

  /** Afterwards the mark names the snapshot, and STORE is absent or a store that holds no other snapshot. */
  prepare(id: string, fingerprintBits: number): void {
    const marked = this.#readMark();
    this.#drop();
    if (existsSync(this.at(STORE)) && (marked !== id || !canResume(this.at(STORE), id, fingerprintBits))) {
      renameSync(this.at(STORE), this.at(DROPPED));
      fsyncDirectory(this.dir);
      this.#drop();
    }
    if (marked !== id) writeAtomically(this.at(MARK), `${id}\n`);
  }

  /** The names in the directory. Errors: USAGE (it holds anything that is not of an export). */
  #entries(): string[] {
    const names = readdirSync(this.dir);
    // A power cut may leave the mark under its temporary name.
    const known = [MARK + TEMPORARY, LOCK, ...(names.includes(MARK) ? [MARK, STORE, DROPPED] : [])];
    if (names.some((name) => !known.includes(name))) throw notAnExport(this.dir);
    const lock = lstatSync(this.at(LOCK), { throwIfNoEntry: false });
    if (lock && !(lock.isFile() && lock.size === 0)) throw notAnExport(this.dir);
    return names;
  }

  /** The ID in the mark; null in an empty directory. Errors: USAGE (the directory holds anything else). */
  #readMark(): string | null {
    const names = this.#entries();
    if (!names.includes(MARK)) return null;
    for (const name of [STORE, DROPPED]) if (names.includes(name)) this.#requirePlain(name);
    const mark = lstatSync(this.at(MARK));
    const text = mark.isFile() && mark.size === 33 ? readFileSync(this.at(MARK), 'latin1') : '';
    if (!/^[0-9a-f]{32}\n$/.test(text)) throw notAnExport(this.dir);
    return text.trim();
  }

  #requirePlain(name: string): void {
    try {
      requirePlainTree(this.at(name));
    } catch (error) {
      throw error instanceof LivesnapError ? notAnExport(this.at(name), error) : error;
    }
  }

  #drop(): void {
    rmSync(this.at(DROPPED), { recursive: true, force: true });
  }

  /** To be called when the export has its final name. If this fails, the next export to that name cleans up. */
  remove(): void {
    try {
      this.#sqliteLock?.close(); // some platforms delete no open file
      for (const name of [MARK + TEMPORARY, MARK, LOCK]) removeIfThere(this.at(name));
      rmdirSync(this.dir);
    } catch (error) {
      if (typeof (error as NodeJS.ErrnoException).code !== 'string') throw error;
    }
  }

  close(): void {
    this.#sqliteLock?.close();
    closeSync(this.#fd);
  }
}

/**
 * SQLite's lock on an empty database, which all platforms have and which ends with the process. Null: another process
 * has it.
 */
function lockBySqlite(path: string): { close(): void } | null {
  const database = new (loadSqlite())(path, { timeout: 0 });
  try {
    database.exec('PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE'); // without a file for the journal
    return database;
  } catch (error) {
    database.close();
    if (sqliteCode(error) === 'SQLITE_BUSY') return null;
    throw error;
  }
}

const notAnExport = (path: string, cause?: unknown): LivesnapError =>
  new LivesnapError('USAGE', `${path} exists and was not left by an export`, {
    hint: 'Move it away, or export to another name.',
    cause,
  });

const NEW_DIRECTORY = 'Name a new or an empty directory.';

const emptyName = (): LivesnapError =>
  new LivesnapError('USAGE', 'the name of the directory is empty', { hint: 'Give the directory.' });

/** Errors: USAGE, unless the target is absent or an empty directory. */
function requireFree(target: string): void {
  let names: string[];
  try {
    names = readdirSync(target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw storeError(target, error);
    throw new LivesnapError('USAGE', `${target} is not a directory`, {
      hint: NEW_DIRECTORY,
    });
  }
  if (names.length > 0) throw new LivesnapError('USAGE', `${target} is not empty`, { hint: NEW_DIRECTORY });
}

/** Whether an interrupted export can be resumed: its store opens and holds no other snapshot. Errors: STORE_BUSY, … */
function canResume(dir: string, id: string, fingerprintBits: number): boolean {
  try {
    return withStore(dir, fingerprintBits, (store) => store.list().every((summary) => summary.id === id));
  } catch (error) {
    // Interrupted before the store was complete, or damaged since.
    if (error instanceof LivesnapError && (error.code === 'NOT_A_STORE' || error.code === 'DAMAGED'))
      return false;
    throw error;
  }
}

function withStore<T>(dir: string, fingerprintBits: number, work: (store: Store) => T): T {
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    return work(store);
  } finally {
    store.close();
  }
}

/** The IDs in an untrusted directory, which is checked before it is opened. Errors: NOT_A_STORE, … */
export function exportedSnapshots(dir: string, fingerprintBits = 64): string[] {
  try {
    requirePlainTree(dir);
  } catch (error) {
    throw storeError(dir, error);
  }
  return withStore(dir, fingerprintBits, (store) => store.list().map(({ id }) => id));
}

/** Imports every snapshot of an untrusted directory. Errors: NOT_A_STORE, and those of a copy. */
export async function importSnapshots(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { from: string },
): Promise<CopyResult[]> {
  if (request.from === '') throw emptyName();
  const from = resolve(requireLocal(request.from));
  await pageOpsLoaded;
  let refs: string[];
  try {
    refs = exportedSnapshots(from, request.fingerprintBits);
  } catch (error) {
    throw operandError(from, error);
  }
  return copySnapshots({ ...request, direction: 'from', remote: from, refs });
}
