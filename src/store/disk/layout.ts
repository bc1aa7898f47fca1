/**
 * The files of a store and how they are made: names, modes (files 0600, directories 0700), and the fsyncs that
 * make a new name last. docs/format.md, "Files".
 */
import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  existsSync,
  fchownSync,
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
/** No pack has number 0: that is the zero page's place. */
const PACK_NAME = /^(?!0{8})([0-9a-f]{8})-(0|[1-9][0-9]{0,8})\.pack$/;

export const SNAPSHOT_ID = /^[0-9a-f]{32}$/;
/** What looks like this names the snapshot of this id, and no other. */
export const LOOKS_LIKE_ID = /^[0-9A-Fa-f]{32}$/;
/** A tag is a file name, never a path, not one that a write cut short could have left, and never like an id. */
export const TAG_LABEL = /^(?!.*\.tmp$)(?![0-9A-Fa-f]{32}$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Packs and segments are numbered with 32 bits. */
export const MAX_NUMBER = 2 ** 32 - 1;
/** File numbers above this are not accepted, so that numbers for new files remain. No real store reaches it. */
export const HIGHEST_NUMBER = 2 ** 32 - 2 ** 20;
/** As many digits as the name of a pack has for it. */
export const MAX_GENERATION = 999_999_999;

export const isFileNumber = (value: number, limit = MAX_NUMBER): boolean =>
  Number.isInteger(value) && value >= 0 && value <= limit;

/**
 * `packs/0000002a-0.pack`, relative to the store. Like all that make names of files it is the second line: what comes
 * from outside has been checked, and what was forgotten there does not become a path elsewhere.
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
 * Of the generations of a pack that are on disk the lowest counts: a later one is there before it is committed, and
 * the one before goes after that. Null: the pack is gone.
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

/**
 * The names in a folder of a store; none where it is missing, as after a copy by a tool that leaves out empty folders.
 */
export function namesIn(dir: string, folder: string): string[] {
  try {
    return readdirSync(join(dir, folder));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** To be called by whoever writes: makes the folders of a store that are missing; true when there were any. */
export function makeMissingFolders(dir: string): boolean {
  const missing = [PACKS, SNAPSHOTS, TAGS, SEGMENTS].filter((name) => !existsSync(join(dir, name)));
  for (const name of missing) makeFolder(join(dir, name));
  return missing.length > 0;
}

/** What a write that was cut short leaves behind; gc removes it. */
export const isTemporary = (name: string): boolean => name.endsWith(TEMPORARY);

/** Whether a store's folder is not a link to one that may hold anything. Errors: NOT_A_STORE. */
export function requireOwnFolders(dir: string): void {
  for (const folder of [PACKS, SNAPSHOTS, TAGS, SEGMENTS, QUARANTINE])
    if (lstatSync(join(dir, folder), { throwIfNoEntry: false })?.isSymbolicLink())
      throw new LivesnapError('NOT_A_STORE', `${join(dir, folder)} is a link`, {
        hint: 'Files are removed from the folders of a store: they must be its own. Move the whole store instead.',
      });
}

/**
 * Looks at the files that SQLite is about to open: it follows links, waits for a pipe for ever, and, if a rollback journal
 * names a super-journal, removes the file of that name, wherever it is (https://www.sqlite.org/fileformat.html, "The
 * Rollback Journal"). Errors: NOT_A_STORE.
 */
export function requirePlainIndex(dir: string): void {
  for (const suffix of ['', '-wal', '-shm', '-journal']) {
    const path = join(dir, DATABASE + suffix);
    const found = lstatSync(path, { throwIfNoEntry: false });
    if (!found) continue;
    const why = found.isFile()
      ? suffix === '-journal' && namesSuperJournal(path, found.size)
        ? 'names a file elsewhere'
        : null
      : 'is no plain file';
    if (why)
      throw new LivesnapError('NOT_A_STORE', `${path} ${why}`, {
        hint: 'The index of a store is its own: move the whole store instead, and take none from a stranger.',
      });
  }
}

const JOURNAL_MAGIC = Buffer.from('d9d505f920a163d7', 'hex');

/** Whether a rollback journal ends as one with the name of a super-journal does. A store has no journal but for the moment when it is made. */
function namesSuperJournal(path: string, sizeBytes: number): boolean {
  const end = Buffer.alloc(JOURNAL_MAGIC.length);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    readSync(fd, end, 0, end.length, Math.max(0, sizeBytes - end.length));
  } finally {
    closeSync(fd);
  }
  return end.equals(JOURNAL_MAGIC);
}

/** Opens a file that must not exist yet, for reading and writing. */
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

/** Makes a folder of a store, owned as {@link giveToOwner} says. */
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
 * Gives a file that root has just made to the owner of its directory, as SQLite does with its log. Otherwise a single
 * `sudo livesnap put` would lock the owner out of the store. The owner is taken from where the file really is: a
 * directory of the path may have been replaced by a link, and root must not give away files elsewhere.
 */
export function giveToOwner(path: string, fd: number): void {
  if (process.geteuid!() !== 0 || statSync(dirname(path)).uid === 0) return;
  const { uid, gid } = lstatSync(dirname(readlinkSync(`/proc/self/fd/${fd}`)));
  try {
    if (uid !== 0) fchownSync(fd, uid, gid);
  } catch (error) {
    // A root that may not change owners, such as that of a container, keeps the file.
    if (!KEEPS_OWNER.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

const KEEPS_OWNER = new Set(['EPERM', 'EINVAL', 'EROFS', 'EOPNOTSUPP']);

export function fsyncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Makes a private directory, and those above it that are missing, so that they outlast a power cut. Errors: the system's;
 * SYSTEM where a directory that exists takes no new ones.
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
 * Makes one directory unless it is there. Node's `recursive` would do both, but tries for ever where mkdir gives ENOENT
 * although the parent exists, as procfs does.
 */
export function makeOne(path: string, mode = 0o777): void {
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' && statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
    if (code === 'ENOENT' && existsSync(dirname(path)))
      throw new LivesnapError(
        'SYSTEM',
        `${dirname(path)} takes no new directories, so ${path} cannot be made`,
        {
          hint: 'Name a directory on another file system.',
          cause: error,
        },
      );
    throw error;
  }
}

/** One may make names in a directory that one may not read; then one cannot sync it either. */
function fsyncForeign(directory: string): void {
  try {
    fsyncDirectory(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
  }
}

/** Replaces or makes a small file so that after a power cut either the old or the new content is there. */
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

/** True when it was there. A directory is none of the store's files, whatever its name, and stays. */
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

/** Refuses to begin writing where there is no room for it and for the index entry that makes it count. */
export function requireFreeSpace(dir: string, neededBytes: number): void {
  const { bavail, bsize } = statfsSync(dir);
  if (bavail * bsize < neededBytes) throw noSpace(dir);
}

/** What gc and rm may spend to commit on a full disk. */
const RESERVE_BYTES = 256 << 10;

/** Makes the reserve file, or makes it whole again; on a full disk it stays missing until a gc finds room. */
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
    if (code === 'EEXIST') return; // another process is just making it
    removeIfThere(path);
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
  }
}

/** The path of a file that is named relative to the store. */
export const at = (dir: string, file: string): string => join(dir, file);
