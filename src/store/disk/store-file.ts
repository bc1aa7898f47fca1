/**
 * Opens and reads every file of a store, except the index, which SQLite opens, and mapped segments.
 *
 * Invariants:
 * - A fault of the file is a DamageError with file and offset: it is missing, a link, a directory, a pipe, unreadable or
 *   truncated. So a bad sector costs the data in it and nothing else.
 * - A fault of the process or the host, such as missing permission or descriptors, is never a DamageError.
 * - Opening follows no link and does not block.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { DamageError } from './damage.js';
import { at } from './layout.js';
import { permissionError } from './store-error.js';

/** The file is missing. */
export class MissingFileError extends DamageError {}

/** Errors of open for anything but a regular file, and of read for a directory. */
const NOT_PLAIN = new Set(['ELOOP', 'ENXIO', 'EISDIR', 'ENODEV']);
/** Errors of reading a bad sector. Some file systems have errors of their own for that. */
const UNREADABLE = new Set(['EIO', 'EBADMSG', 'ENODATA']);
/** "Structure needs cleaning", for which Node has no name. */
const EUCLEAN = -117;

/** Whether a system call failed because the disk cannot read the data. */
export function isUnreadable(error: unknown): boolean {
  const { code = '', errno } = error as NodeJS.ErrnoException;
  return UNREADABLE.has(code) || errno === EUCLEAN;
}

/** The damage that a failed system call shows; null: the fault is not the file's. */
export function damageOf(error: unknown, file: string, offset: number | null): DamageError | null {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return new MissingFileError(file, null, 'the file is missing');
  if (NOT_PLAIN.has(code)) return notPlain(file);
  if (isUnreadable(error)) return new DamageError(file, offset, 'the disk cannot read it');
  return null;
}

const notPlain = (file: string): DamageError => new DamageError(file, null, 'this is not a regular file');

export class StoreFile {
  readonly sizeBytes: number;
  readonly fd: number;
  #open = true;

  /** `file`: relative to the store. Errors: DAMAGED, NO_PERMISSION, and those of the system. */
  constructor(
    readonly dir: string,
    readonly file: string,
  ) {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    this.fd = this.#guarded(null, () => openSync(at(dir, file), O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
    try {
      const found = this.#guarded(null, () => fstatSync(this.fd));
      if (!found.isFile()) throw notPlain(file);
      this.sizeBytes = found.size;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #guarded<T>(offset: number | null, call: () => T): T {
    try {
      return call();
    } catch (error) {
      throw damageOf(error, this.file, offset) ?? permissionError(this.dir, error) ?? error;
    }
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    this.readInto(bytes, offset, length);
    return bytes;
  }

  readInto(bytes: Uint8Array, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const got = this.#guarded(offset, () => readSync(this.fd, bytes, done, length - done, offset + done));
      if (got === 0) throw new DamageError(this.file, offset, 'the file is truncated');
      done += got;
    }
  }

  close(): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
  }
}

/** Reads a small file. Errors: DAMAGED, also when it is longer than `maxBytes`. */
export function readSmallFile(dir: string, file: string, maxBytes: number): Buffer {
  const opened = new StoreFile(dir, file);
  try {
    if (opened.sizeBytes > maxBytes)
      throw new DamageError(file, null, `the file is too long: ${opened.sizeBytes} bytes`);
    return opened.read(0, opened.sizeBytes);
  } finally {
    opened.close();
  }
}
