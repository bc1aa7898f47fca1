/**
 * Opens a store's directory, or creates a store in it (docs/format.md, "Files").
 *
 * Invariants:
 * - A directory that holds anything else is never turned into a store.
 * - An interrupted creation leaves a directory in which the next one succeeds.
 * - Of several processes that create a store at the same time, one creates it and the others open it.
 */
import { chmodSync, readdirSync, statSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import {
  at,
  DATABASE,
  DIRECTORY_MODE,
  fillReserve,
  fsyncDirectory,
  INDEX_LOCK,
  LOCK,
  makeDirectory,
  makeMissingFolders,
  namesIn,
  PACKS,
  RESERVE,
  requireOwnFolders,
  requirePlainIndex,
  SEGMENTS,
  SNAPSHOTS,
  storeError,
  TAGS,
} from './disk/layout.js';
import { Index } from './index/index-database.js';
import { notAStore, requireShortPath } from './index/index-files.js';
import { finishReplacement } from './index/index-replacement.js';

/** Errors: those of `Store.open`. */
export function openIndex(dir: string, write: boolean, create: boolean): Index {
  try {
    const found = statSync(dir, { throwIfNoEntry: false });
    if (found && !found.isDirectory()) throw notAStore(dir);
    if (write) {
      requireShortPath(dir);
      requireOwnFolders(dir);
    }
    requirePlainIndex(dir);
    finishReplacement(dir);
    if (hasIndex(dir)) return openExisting(dir, write);
    if (!create) throw found && !isEmpty(dir) ? notAStore(dir) : noSuchStore(dir);
    return createStore(dir);
  } catch (error) {
    throw storeError(dir, error);
  }
}

/** Checks that repair may work in the directory. Errors: NO_SUCH_FILE, USAGE, NO_PERMISSION. */
export function requireRepairable(dir: string): void {
  try {
    if (!statSync(dir, { throwIfNoEntry: false })) throw noSuchStore(dir);
    requireOwnFolders(dir);
    requireShortPath(dir);
  } catch (error) {
    throw storeError(dir, error);
  }
}

/** An interrupted creation may leave an empty file. */
const hasIndex = (dir: string): boolean =>
  (statSync(at(dir, DATABASE), { throwIfNoEntry: false })?.size ?? 0) > 0;

function openExisting(dir: string, write: boolean): Index {
  const index = Index.open(dir, write);
  try {
    // An interrupted creation has made the index only, and some programs copy no empty directories.
    if (write && makeMissingFolders(dir)) fsyncDirectory(dir);
    return index;
  } catch (error) {
    index.close();
    throw error;
  }
}

/** Of a new file system. */
const LOST_AND_FOUND = 'lost+found';

/** A directory that was made for a store, or a file system that is mounted for one. */
const isEmpty = (dir: string): boolean => readdirSync(dir).every((name) => name === LOST_AND_FOUND);

/** Files that an interrupted creation or repair may leave, and the directory of a new file system. */
const HARMLESS = new Set([
  PACKS,
  SNAPSHOTS,
  TAGS,
  SEGMENTS,
  DATABASE,
  LOCK,
  INDEX_LOCK,
  RESERVE,
  LOST_AND_FOUND,
]);
const HARMLESS_DATABASE = /^store\.db(\.(new|next|old))?(-(wal|shm|journal))?$/;

function createStore(dir: string): Index {
  makeDirectory(dir);
  const isFree =
    readdirSync(dir).every((name) => HARMLESS.has(name) || HARMLESS_DATABASE.test(name)) &&
    [PACKS, SNAPSHOTS, TAGS].every((name) => namesIn(dir, name).length === 0);
  if (!isFree) {
    // Another process may have created the store meanwhile, and saved to it.
    if (hasIndex(dir)) return Index.open(dir, true);
    throw notAStore(dir);
  }
  chmodSync(dir, DIRECTORY_MODE);
  makeMissingFolders(dir);
  const index = Index.create(dir);
  try {
    fillReserve(dir);
    fsyncDirectory(dir);
    return index;
  } catch (error) {
    index.close();
    throw error;
  }
}

const noSuchStore = (dir: string): LivesnapError =>
  new LivesnapError('NO_SUCH_FILE', `there is no store at ${dir}`, {
    hint: 'The first save or put creates it. To use another store, set --store or LIVESNAP_STORE.',
  });
