/**
 * Files of the host that requests may name: regular files below the directories that `serve --allow` names.
 *
 * Invariants:
 * - What is checked is what is used: a file is opened once, and its path in /proc/self/fd decides and goes on.
 * - A file is opened for writing only after it is known to be allowed, and by the descriptor that was checked.
 * - Outside of the directories there is one answer, whether a file exists or not.
 * - Opening blocks on no FIFO and starts no device.
 */
import { closeSync, constants, fstatSync, openSync, readlinkSync, realpathSync } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { HttpError } from '../machine/http-status.js';

/** An open file. Its path names it, as long as it is open, also for other processes of this user. */
export interface AllowedFile extends Disposable {
  readonly fd: number;
  readonly path: string;
}

export class AllowedFiles {
  /** Without symbolic links, and with a slash at the end. */
  readonly #directories: readonly string[];
  /** As they were given, too. */
  readonly #names: readonly string[];

  /** Errors: USAGE (a directory does not exist). */
  constructor(directories: readonly string[]) {
    this.#directories = directories.map((directory) => {
      try {
        return join(realpathSync(directory), '/');
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        throw new LivesnapError(
          'USAGE',
          `--allow: ${directory} ${code === 'ENOENT' ? 'does not exist' : `cannot be used: ${message}`}`,
          { hint: 'Give a directory that exists.' },
        );
      }
    });
    this.#names = [...this.#directories, ...directories.map((directory) => join(resolve(directory), '/'))];
  }

  /** Errors: HttpError 403. */
  open(path: string): AllowedFile {
    const fd = this.#openPlain(path);
    if (fd === null) throw refused();
    return { fd, path: `/proc/${process.pid}/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) };
  }

  /** The same to read and write. Errors: HttpError 403, NO_PERMISSION, NOT_POSSIBLE_NOW, SYSTEM. */
  openToWrite(path: string): AllowedFile {
    const file = this.open(path);
    try {
      const fd = openSync(file.path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
      return { fd, path: `/proc/${process.pid}/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) };
    } catch (error) {
      throw notWritable(path, error as NodeJS.ErrnoException);
    } finally {
      file[Symbol.dispose]();
    }
  }

  #openPlain(path: string): number | null {
    if (!isAbsolute(path) || path.includes('\0') || !this.#names.some((name) => join(path).startsWith(name)))
      return null; // Opening it would tell, by the time it takes, whether it exists.
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch {
      return null;
    }
    try {
      const actual = readlinkSync(`/proc/self/fd/${fd}`);
      if (fstatSync(fd).isFile() && this.#directories.some((directory) => actual.startsWith(directory)))
        return fd;
    } catch {
      // It is refused.
    }
    closeSync(fd);
    return null;
  }
}

function notWritable(path: string, cause: NodeJS.ErrnoException): LivesnapError {
  const { code, message } = cause;
  if (code === 'ETXTBSY' || code === 'EBUSY')
    return new LivesnapError('NOT_POSSIBLE_NOW', `${path} is in use by another program`, { cause });
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
    return new LivesnapError('NO_PERMISSION', `${path} may not be written`, {
      hint: 'Use the mode ro or cow, or change the permissions of the file.',
      cause,
    });
  return new LivesnapError('SYSTEM', `${path} cannot be opened: ${message}`, { cause });
}

const refused = (): HttpError =>
  new HttpError(
    403,
    'this file of the host is not allowed',
    'Store it with livesnap put and name its snapshot, or start the server with --allow DIR.',
  );
