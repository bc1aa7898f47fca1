/**
 * How every file of a store is opened and read, but for the index, which is SQLite's, and a mapped segment.
 *
 * Invariants: what is wrong with the file itself (it is missing, is a link, a directory or a pipe, the disk cannot read
 * it, it ends too early) is a DamageError with file and offset, so that a bad sector costs what it holds and stops
 * nothing else; what is wrong with the process or the host (no descriptors, no permission) never is. Opening follows
 * no link and waits for nobody.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { DamageError } from './damage.js';
import { at } from './layout.js';
import { permissionError } from './store-error.js';

/** The file is not there. */
export class MissingFileError extends DamageError {}

/** What open says of a name that is no plain file; what read says of a directory. */
const NOT_PLAIN = new Set(['ELOOP', 'ENXIO', 'EISDIR', 'ENODEV']);
/** What the kernel says of bytes that it cannot give. Some file systems have names of their own for it. */
const UNREADABLE = new Set(['EIO', 'EBADMSG', 'ENODATA']);
/** "Structure needs cleaning", for which Node has no name. */
const EUCLEAN = -117;

/** Whether a failed system call says that the disk cannot give what is there. */
export function isUnreadable(error: unknown): boolean {
  const { code = '', errno } = error as NodeJS.ErrnoException;
  return UNREADABLE.has(code) || errno === EUCLEAN;
}

/** The damage that a failed system call tells of; null: it says nothing about the file. */
export function damageOf(error: unknown, file: string, offset: number | null): DamageError | null {
  const { code = '' } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return new MissingFileError(file, null, 'the file is missing');
  if (NOT_PLAIN.has(code)) return notPlain(file);
  if (isUnreadable(error)) return new DamageError(file, offset, 'the disk cannot read it');
  return null;
}

const notPlain = (file: string): DamageError => new DamageError(file, null, 'this is not a plain file');

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
      if (got === 0) throw new DamageError(this.file, offset, 'the file ends too early');
      done += got;
    }
  }

  close(): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
  }
}

/** All of a small file. Errors: DAMAGED, also when it has more than `maxBytes`. */
export function readSmallFile(dir: string, file: string, maxBytes: number): Buffer {
  const opened = new StoreFile(dir, file);
  try {
    if (opened.sizeBytes > maxBytes)
      throw new DamageError(file, null, `the file has ${opened.sizeBytes} bytes`);
    return opened.read(0, opened.sizeBytes);
  } finally {
    opened.close();
  }
}
