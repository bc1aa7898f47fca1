/**
 * The files of a store and how they are created: names, modes (files 0600, directories 0700), and the fsyncs that make a
 * new name durable (docs/format.md, "Files").
 */
import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { syncFiles } from '../../native/files.js';
import { noSpace, storeError } from './store-error.js';

export { storeError };

export const FILE_MODE = 0o600;
export const DIRECTORY_MODE = 0o700;

export const DATABASE = 'store.db';
export const LOCK = 'lock';
export const INDEX_LOCK = 'index.lock';
export const RESERVE = 'reserve';
export const PACKS = 'packs';
export const SNAPSHOTS = 'snapshots';
export const TAGS = 'tags';
export const SEGMENTS = 'segments';
export const QUARANTINE = 'quarantine';

export const TEMPORARY = '.tmp';
/** No pack has number 0, which stands for the zero page. */
const PACK_NAME = /^(?!0{8})([0-9a-f]{8})-(0|[1-9][0-9]{0,8})\.pack$/;

export const SNAPSHOT_ID = /^[0-9a-f]{32}$/;
/** A reference of this form names the snapshot with this ID, never a tag. */
export const LOOKS_LIKE_ID = /^[0-9A-Fa-f]{32}$/;
/** A tag is a file name: no path, no name of an interrupted write, and nothing that looks like an ID. */
export const TAG_LABEL = /^(?!.*\.tmp$)(?![0-9A-Fa-f]{32}$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Packs and segments are numbered with 32 bits. */
export const MAX_NUMBER = 2 ** 32 - 1;
/** File numbers above this are not accepted, so that numbers for new files remain. No real store reaches it. */
export const HIGHEST_NUMBER = 2 ** 32 - 2 ** 20;
/** The name of a pack has nine digits for it. */
export const MAX_GENERATION = 999_999_999;

export const isFileNumber = (value: number, limit = MAX_NUMBER): boolean =>
  Number.isInteger(value) && value >= 0 && value <= limit;

/**
 * `packs/0000002a-0.pack`, relative to the store. Input is checked where it enters. The assertions in functions that make
 * file names are a second line: a forgotten check does not become a path elsewhere.
 */
export function packFile(number: number, generation: number): string {
  assert(isFileNumber(number) && isFileNumber(generation, MAX_GENERATION), 'this is not a pack');
  return `${PACKS}/${number.toString(16).padStart(8, '0')}-${generation}.pack`;
}

/** `tags/LABEL`, relative to the store. */
export function tagFile(label: string): string {
  assert(TAG_LABEL.test(label), 'this is not a tag');
  return `${TAGS}/${label}`;
}

export function parsePackName(name: string): { number: number; generation: number } | null {
  const match = PACK_NAME.exec(name);
  return match ? { number: Number.parseInt(match[1]!, 16), generation: Number(match[2]) } : null;
}

/**
 * The generation of a pack that counts; null: the pack is gone. A rewrite creates the next generation, commits it, and
 * then deletes the old one. So the lowest on disk counts.
 */
export function lowestGeneration(dir: string, number: number): number | null {
  const generations = generationsOnDisk(dir, number);
  return generations.length > 0 ? Math.min(...generations) : null;
}

export function generationsOnDisk(dir: string, number: number): number[] {
  return namesIn(dir, PACKS).flatMap((name) => {
    const pack = parsePackName(name);
    return pack?.number === number ? [pack.generation] : [];
  });
}

/** The names in a folder of a store. A missing folder is empty: some copy tools leave out empty folders. */
export function namesIn(dir: string, folder: string): string[] {
  try {
    return readdirSync(join(dir, folder));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Creates the missing folders of a store; true when there were any. Only for writers. */
export function makeMissingFolders(dir: string): boolean {
  const missing = [PACKS, SNAPSHOTS, TAGS, SEGMENTS].filter((name) => !existsSync(join(dir, name)));
  for (const name of missing) makeFolder(join(dir, name));
  return missing.length > 0;
}

/** Whether an interrupted write left it. gc deletes it. */
export const isTemporary = (name: string): boolean => name.endsWith(TEMPORARY);

/** Refuses a store whose folders are links, because what they lead to may be anything. Errors: NOT_A_STORE. */
export function requireOwnFolders(dir: string): void {
  for (const folder of [PACKS, SNAPSHOTS, TAGS, SEGMENTS, QUARANTINE])
    if (lstatSync(join(dir, folder), { throwIfNoEntry: false })?.isSymbolicLink())
      throw new LivesnapError('NOT_A_STORE', `${join(dir, folder)} is a link`, {
        hint: 'livesnap deletes files in this folder, so it must be part of the store. Move the whole store instead.',
      });
}

/**
 * Checks the files that SQLite is about to open. SQLite follows links and waits on a pipe without limit. If a rollback
 * journal names a super-journal, SQLite deletes the file of that name, wherever it is
 * (https://www.sqlite.org/fileformat.html, "The Rollback Journal"). Errors: NOT_A_STORE.
 */
export function requirePlainIndex(dir: string): void {
  for (const suffix of ['', '-wal', '-shm', '-journal']) {
    const path = join(dir, DATABASE + suffix);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (!found) continue;
    const why = found.isFile()
      ? suffix === '-journal' && namesSuperJournal(path)
        ? 'names a file elsewhere'
        : null
      : 'is not a regular file';
    if (why)
      throw new LivesnapError('NOT_A_STORE', `${path} ${why}`, {
        hint: 'Move the whole store instead of its index. Do not open index files from untrusted sources.',
      });
  }
}

/** Returns what `look` does; null when the file has just been removed, as SQLite does with the files beside a database. */
export function unlessGone<T>(look: () => T): T | null {
  try {
    return look();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** It begins each header of a rollback journal, and ends the name of a super-journal. */
const JOURNAL_MAGIC = Buffer.from('d9d505f920a163d7', 'hex');
/** A name of one byte, its length, its checksum and the magic. A shorter journal is the beginning of a header. */
const MIN_SUPER_JOURNAL_BYTES = 17;

/** Whether a rollback journal ends like one that names a super-journal. A store has a journal only while it is created. */
function namesSuperJournal(path: string): boolean {
  const end = Buffer.alloc(JOURNAL_MAGIC.length);
  const fd = unlessGone(() =>
    openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK),
  );
  if (fd === null) return false;
  try {
    // Another process may be writing it, so its size is that of the open file.
    const { size } = fstatSync(fd);
    if (size < MIN_SUPER_JOURNAL_BYTES) return false;
    readSync(fd, end, 0, end.length, size - end.length);
  } finally {
    closeSync(fd);
  }
  return end.equals(JOURNAL_MAGIC);
}

/** Creates a file for reading and writing. Errors: the system's, EEXIST among them. */
export const createPrivate = (path: string): number =>
  openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, FILE_MODE);

/** As {@link createPrivate}, for a file of a store: see {@link giveToOwner}. */
export function createOwned(path: string): number {
  const fd = createPrivate(path);
  try {
    giveToOwner(path, fd);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Creates a folder of a store: see {@link giveToOwner}. */
export function makeFolder(path: string): void {
  makeOne(path, DIRECTORY_MODE);
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    giveToOwner(path, fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Gives a file that root has just created to the owner of its directory, as SQLite does with its log. Otherwise a single
 * `sudo livesnap put` would lock the owner out of the store. The directory is that of the open file, not that of the path:
 * a part of the path may have been replaced by a link, and root must not give away files elsewhere.
 */
export function giveToOwner(path: string, fd: number): void {
  // On other platforms only exports are written.
  if (process.platform !== 'linux' || process.geteuid!() !== 0) return;
  if (statSync(dirname(path)).uid === 0) return;
  const { uid, gid } = lstatSync(dirname(readlinkSync(`/proc/self/fd/${fd}`)));
  try {
    if (uid !== 0) fchownSync(fd, uid, gid);
  } catch (error) {
    // A root that may not change owners, such as that of a container, keeps the file.
    if (!KEEPS_OWNER.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

const KEEPS_OWNER = new Set(['EPERM', 'EINVAL', 'EROFS', 'ENOTSUP']);

export const fsyncDirectory = (path: string): void => fsyncDirectories([path]);

/** Fsyncs directories at the same time ({@link syncFiles}). */
export function fsyncDirectories(paths: readonly string[]): void {
  if (process.platform === 'win32') return; // Windows cannot sync a directory
  const fds: number[] = [];
  try {
    for (const path of paths) fds.push(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
    syncFiles(fds);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/**
 * Creates a private directory, and missing ones above it, so that they survive a power cut. Errors: the system's; SYSTEM
 * where no directory can be created.
 */
export function makeDirectory(path: string): void {
  const target = resolve(path);
  const missing: string[] = [];
  for (let above = dirname(target); !existsSync(above); above = dirname(above)) missing.unshift(above);
  for (const directory of missing) {
    makeOne(directory);
    fsyncForeign(dirname(directory));
  }
  makeOne(target, DIRECTORY_MODE);
  fsyncForeign(dirname(target));
}

/**
 * Creates one directory unless it exists. Node's `recursive` would loop for ever where mkdir fails with ENOENT although the
 * parent exists, as in procfs.
 */
function makeOne(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    if (code === 'ENOENT' && existsSync(dirname(path)))
      throw new LivesnapError(
        'SYSTEM',
        `cannot create ${path}: no directory can be created in ${dirname(path)}`,
        {
          hint: 'Name a directory on another file system.',
          cause: error,
        },
      );
    throw error;
  }
}

/** A directory with write but no read permission takes new names, but cannot be synced. */
function fsyncForeign(directory: string): void {
  try {
    fsyncDirectory(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
  }
}

/** Replaces or creates a small file. After a power cut it has either the old or the new content. */
export function writeAtomically(path: string, content: string | Uint8Array): void {
  const temporary = path + TEMPORARY;
  removeIfThere(temporary);
  const fd = createOwned(temporary);
  try {
    writeFileSync(fd, content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
  fsyncDirectory(dirname(path));
}

/** True when it existed. A directory stays: no file of a store is one. */
export function removeIfThere(path: string): boolean {
  try {
    unlinkSync(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'EISDIR') return false;
    throw error;
  }
}

/** Refuses a write that has no room for its data and for its index entry. Errors: NO_SPACE. */
export function requireFreeSpace(dir: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(dir);
  if (bavail * bsize < neededBytes) throw noSpace(dir);
}

/** Room for gc and rm to commit on a full disk. */
const RESERVE_BYTES = 256 << 10;

/** Creates or completes the reserve file. On a full disk it stays missing until gc finds room. */
export function fillReserve(dir: string): void {
  const path = join(dir, RESERVE);
  if (statSync(path, { throwIfNoEntry: false })?.size === RESERVE_BYTES) return;
  try {
    removeIfThere(path);
    const fd = createOwned(path);
    try {
      writeFileSync(fd, Buffer.alloc(RESERVE_BYTES));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return; // another process is creating it
    removeIfThere(path);
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
  }
}

/** The path of a file that is named relative to the store. */
export const at = (dir: string, file: string): string => join(dir, file);
