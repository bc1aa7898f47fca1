/**
 * Opens the index of a store: in place, or a private copy of it.
 *
 * A WAL database cannot be opened in a directory that cannot be written, nor on a full disk. Readers get a private copy
 * there.
 */
import { chmodSync, closeSync, constants, existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type BetterSqlite3 from 'better-sqlite3';
import { temporaryDirectory } from '../../environment.js';
import { LivesnapError } from '../../errors.js';
import { loadSqlite } from '../../native/modules.js';
import {
  at,
  DATABASE,
  FILE_MODE,
  giveToOwner,
  INDEX_LOCK,
  PACKS,
  RESERVE,
  removeIfThere,
  requirePlainIndex,
  storeError,
} from '../disk/layout.js';
import { sqliteCode } from '../disk/store-error.js';
import { StoreLock } from '../disk/store-lock.js';
import { whenIndexIsFree } from '../disk/waits.js';
import { Connection } from './connection.js';
import {
  canOpenInPlace,
  copyIndex,
  hasOtherLinks,
  lockForWriting,
  notAStore,
  requireWritableIndex,
} from './index-files.js';
import { migrate } from './schema.js';

const Database = loadSqlite();

/** whenIndexIsFree waits for other connections, not SQLite. */
const BUSY_TIMEOUT_MS = 0;

/** Creates the database of a new store, or completes one that a crash left empty. */
export function createIndex(dir: string, file: string): Connection {
  const path = at(dir, file);
  const lock = file === DATABASE ? StoreLock.acquireSync(dir, 'shared', INDEX_LOCK) : null;
  try {
    createDatabaseFile(path);
    chmodSync(path, FILE_MODE); // SQLite gives -wal and -shm the mode of the database
    const database = new Database(path, { timeout: BUSY_TIMEOUT_MS });
    return prepare(dir, database, lock, true);
  } catch (error) {
    lock?.release();
    throw storeError(dir, error);
  }
}

/** As root, SQLite gives -wal and -shm the owner of the database. */
function createDatabaseFile(path: string): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE);
  try {
    giveToOwner(path, fd);
  } finally {
    closeSync(fd);
  }
}

/** Errors: NOT_A_STORE, NEWER_FORMAT, READ_ONLY, NO_PERMISSION, NO_SPACE, STORE_BUSY, DAMAGED. */
export function openIndex(dir: string, write: boolean): Connection {
  requirePlainIndex(dir);
  if (!write && !canOpenInPlace(dir)) return openCopy(dir);
  let lock: StoreLock | null = null;
  try {
    if (write) requireWritableIndex(dir);
    lock = write ? lockForWriting(dir) : StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
    // The last connection that closes moves the log into the database, even a reader's, unless it is read-only.
    const readonly = !write && hasOtherLinks(dir);
    const options = { timeout: BUSY_TIMEOUT_MS, fileMustExist: true, readonly };
    const database = new Database(at(dir, DATABASE), options);
    return prepare(dir, database, lock, write);
  } catch (error) {
    lock?.release();
    // A full disk has no room for -wal and -shm.
    if (MAY_BE_FULL.has(sqliteCode(error) ?? (error as { code?: string }).code ?? '')) {
      if (!write) return openCopy(dir);
      if (removeIfThere(at(dir, RESERVE))) return openIndex(dir, write);
    }
    throw openError(dir, error);
  }
}

/** Opens a private copy, which is deleted as soon as it is open. */
function openCopy(dir: string): Connection {
  const scratch = makeScratchDirectory();
  try {
    const copy = join(scratch, DATABASE);
    const lock = StoreLock.acquireSync(dir, 'shared', INDEX_LOCK);
    try {
      copyIndex(dir, copy);
    } finally {
      lock.release();
    }
    const database = new Database(copy, { timeout: BUSY_TIMEOUT_MS });
    database.pragma('locking_mode = EXCLUSIVE'); // without -shm the files can be deleted while open
    database.pragma('journal_mode = MEMORY'); // moves the -wal into the database
    return prepare(dir, database, null, false);
  } catch (error) {
    const isOfScratch = (error as NodeJS.ErrnoException).path?.startsWith(scratch) || isFull(error);
    throw isOfScratch ? cannotCopy(error as Error) : openError(dir, error);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** A directory for a private copy. Errors: SYSTEM. */
function makeScratchDirectory(): string {
  const parent = temporaryDirectory();
  try {
    return mkdtempSync(join(parent, 'livesnap-index-'));
  } catch (error) {
    throw cannotCopy(error as Error);
  }
}

function prepare(
  dir: string,
  database: BetterSqlite3.Database,
  lock: StoreLock | null,
  write: boolean,
): Connection {
  try {
    // The file may come from anywhere: SQLite must not trust or run anything in its schema.
    database.pragma('trusted_schema = OFF');
    database.pragma('cell_size_check = ON');
    // In WAL mode the same as FULL. In rollback mode the directory is synced, too, when a commit deletes the journal:
    // a journal that a power cut brings back would undo the commit.
    whenIndexIsFree(() => database.pragma('synchronous = EXTRA'));
    database.pragma('foreign_keys = ON');
    const connection = new Connection(dir, database, lock);
    migrate(connection, write);
    if (!write) database.pragma('query_only = ON');
    return connection;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Codes of SQLite and Linux that a full disk can cause. */
const MAY_BE_FULL = new Set(['SQLITE_FULL', 'SQLITE_CANTOPEN', 'SQLITE_IOERR', 'ENOSPC', 'EDQUOT']);

const isFull = (error: unknown): boolean =>
  ['SQLITE_FULL', 'ENOSPC', 'EDQUOT'].includes(sqliteCode(error) ?? (error as { code: string }).code);

/** The private copy failed, not the store. */
const cannotCopy = (error: Error): LivesnapError =>
  new LivesnapError(
    'SYSTEM',
    `cannot copy the index to the directory ${temporaryDirectory()}: ${error.message}`,
    { hint: 'Free space there, or set TMPDIR to another directory.', cause: error },
  );

/** A file that is not a database, in a directory without packs/, is not the index of a damaged store. */
function openError(dir: string, error: unknown): unknown {
  const isForeign = sqliteCode(error) === 'SQLITE_NOTADB' && !existsSync(at(dir, PACKS));
  return isForeign ? notAStore(dir, error) : storeError(dir, error);
}
