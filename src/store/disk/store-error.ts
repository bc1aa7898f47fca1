/**
 * Turns errors of system calls and of SQLite in a store into livesnap's own errors.
 *
 * Invariants:
 * - An error names the file at fault when the kernel named one.
 * - READ_ONLY means a read-only file system, or an index that SQLite cannot write. NO_PERMISSION means an owner or a mode
 *   that keeps this user out.
 * - An error of a caller's stream, source or sink passes unchanged ({@link notOfStore}): it is not the store's.
 */
import { accessSync, constants, lstatSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { LivesnapError, SystemError } from '../../errors.js';

const foreign = new WeakSet<object>();

/** Marks an error as one of the caller's source or sink, and returns it. {@link storeError} leaves it alone. */
export function notOfStore(error: unknown): unknown {
  if (typeof error === 'object' && error !== null) foreign.add(error);
  return error;
}

/** A failed call: Linux's name of the error, the call, and the file if there was one. */
interface Failure {
  readonly errno: string;
  readonly syscall: string | undefined;
  readonly path: string | undefined;
  readonly dest: string | undefined;
}

function failureOf(error: unknown): Failure | null {
  if (error instanceof SystemError) {
    const { errnoName: errno, syscall } = error;
    return { errno, syscall, path: undefined, dest: undefined };
  }
  if (error instanceof LivesnapError || typeof error !== 'object' || error === null) return null;
  const { code, syscall, path, dest } = error as NodeJS.ErrnoException & { dest?: string };
  return typeof code === 'string' && /^E[A-Z0-9]+$/.test(code) ? { errno: code, syscall, path, dest } : null;
}

/** The primary result code: SQLite reports `SQLITE_BUSY_RECOVERY` and `SQLITE_BUSY` by turns. */
export function sqliteCode(error: unknown): string | null {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? (/^SQLITE_[A-Z]+/.exec(code)?.[0] ?? null) : null;
}

export const noSpace = (dir: string, cause?: unknown): LivesnapError =>
  new LivesnapError('NO_SPACE', `the disk of the store ${dir} is full`, {
    hint: 'Free some space: remove snapshots with livesnap rm and run livesnap gc.',
    cause,
  });

const readOnly = (dir: string, cause?: unknown): LivesnapError =>
  new LivesnapError('READ_ONLY', `the store ${dir} is on a read-only file system`, {
    hint: 'Mount the file system for writing, or name another store with --store.',
    cause,
  });

/** The project's error for a failure while working in the store; errors of other kinds pass unchanged. */
export function storeError(dir: string, error: unknown): unknown {
  if (typeof error === 'object' && error !== null && foreign.has(error)) return error;
  const failure = failureOf(error);
  if (failure) return systemError(dir, failure, error as Error);
  switch (sqliteCode(error)) {
    case null:
      return error;
    case 'SQLITE_FULL':
      return noSpace(dir, error);
    case 'SQLITE_READONLY':
      return new LivesnapError(
        'READ_ONLY',
        `the index of the store ${dir} cannot be written: ${(error as Error).message}`,
        {
          hint: 'Check whether the store was moved or deleted meanwhile, and the attributes of its files with lsattr.',
          cause: error,
        },
      );
    case 'SQLITE_BUSY':
      return new LivesnapError('STORE_BUSY', `the store ${dir} is being written by another process`, {
        hint: 'Try again when it has finished.',
        cause: error,
      });
    case 'SQLITE_CORRUPT':
    case 'SQLITE_NOTADB':
      return new LivesnapError('DAMAGED', `the index of the store ${dir} is damaged`, {
        hint: 'Run livesnap repair: it rebuilds the index from the files beside it.',
        cause: error,
      });
    case 'SQLITE_IOERR': // SQLite does not report which error of the system it was
      return new LivesnapError('SYSTEM', `the index of the store ${dir}: ${(error as Error).message}`, {
        hint: 'Check whether the disk is full, and whether the kernel reports faults of the disk (dmesg).',
        cause: error,
      });
    default:
      return new LivesnapError('SYSTEM', `the index of the store ${dir}: ${(error as Error).message}`, {
        cause: error,
      });
  }
}

function systemError(dir: string, failure: Failure, error: Error): LivesnapError {
  switch (failure.errno) {
    case 'ENOSPC':
    case 'EDQUOT':
      return noSpace(dir, error);
    case 'EROFS':
      return readOnly(dir, error);
    case 'EACCES':
    case 'EPERM':
      return noPermission(dir, failure, error);
    case 'EFBIG':
      return new LivesnapError('SYSTEM', `a file of the store ${dir} is too large for its file system`, {
        hint: 'Move the store to another file system, or raise the file size limit (ulimit -f).',
        cause: error,
      });
    default:
      return new LivesnapError('SYSTEM', `the store ${dir}: ${error.message}`, { cause: error });
  }
}

/** NO_PERMISSION for a failed call that owner or mode forbid; null for other errors. */
export function permissionError(dir: string, error: unknown): LivesnapError | null {
  const failure = failureOf(error);
  return failure && isForbidden(failure.errno) ? noPermission(dir, failure, error) : null;
}

const isForbidden = (errno: unknown): boolean => errno === 'EACCES' || errno === 'EPERM';

/** Calls that change a directory and not the file that they name. */
const OF_DIRECTORY = new Set(['unlink', 'rename', 'mkdir', 'rmdir', 'link', 'symlink']);

interface Owned {
  readonly file: string;
  readonly uid: number;
  readonly mode: number;
}

/**
 * The file whose owner or mode forbids the call: the named file, or the directory in which it would be created or deleted,
 * or a directory that may not be searched. Null: the kernel named no file.
 */
function fileAtFault({ syscall = '', path, dest }: Failure): Owned | null {
  if (path === undefined) return null;
  if (!OF_DIRECTORY.has(syscall)) return nearest(resolve(path));
  const folders = (syscall === 'rename' && dest !== undefined ? [path, dest] : [path]).map((name) =>
    dirname(resolve(name)),
  );
  return nearest(folders.find((folder) => !mayWrite(folder)) ?? folders[0]!);
}

/** The file, or the nearest directory above it whose owner can be read. */
function nearest(file: string): Owned | null {
  for (let at = file; ; at = dirname(at)) {
    try {
      const { uid, mode } = lstatSync(at);
      return { file: at, uid, mode };
    } catch {
      if (at === dirname(at)) return null;
    }
  }
}

function mayWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

const userName = (uid: number): string => (uid === 0 ? 'root' : `user ${uid}`);

function noPermission(dir: string, failure: Failure, error: unknown): LivesnapError {
  const found = fileAtFault(failure);
  if (!found) {
    const what = failure.syscall ?? 'a system call';
    return new LivesnapError('NO_PERMISSION', `no permission for ${what} in the store ${dir}`, {
      hint: 'Run livesnap as the owner of the store.',
      cause: error,
    });
  }
  const { file, uid, mode } = found;
  const owner = `owner ${userName(uid)}, mode ${(mode & 0o7777).toString(8).padStart(4, '0')}`;
  return new LivesnapError('NO_PERMISSION', `no permission to ${attempt(failure, file)} (${owner})`, {
    hint: remedy(dir, found),
    cause: error,
  });
}

const VERBS: Record<string, string> = {
  unlink: 'delete',
  rmdir: 'delete',
  mkdir: 'create',
  scandir: 'list',
  access: 'write',
  stat: 'open',
  lstat: 'open',
  realpath: 'open',
};

/** `open /s/packs/1`, `delete 1 in /s/packs`, `open files below /s`. */
function attempt({ syscall = 'open', path }: Failure, file: string): string {
  const verb = VERBS[syscall] ?? syscall;
  const named = resolve(path ?? file);
  if (named === file) return `${verb} ${file}`;
  return dirname(named) === file ? `${verb} ${basename(named)} in ${file}` : `${verb} files below ${file}`;
}

/** The remedy depends on whose store it is. */
function remedy(dir: string, { file, uid }: Owned): string {
  const me = process.geteuid?.();
  if (uid === me) return `Check the mode and attributes of ${file} with ls -l and lsattr.`;
  if (nearest(resolve(dir))?.uid === me)
    return `Give the store back to its owner: sudo chown -R ${me}:${process.getegid?.()} ${dir}`;
  return 'Run livesnap as the owner of the store, or use a store in a directory of your own.';
}
