/**
 * The bytes of an image (a file, or what was unpacked from one), read by offset; a read that the image is too short
 * for says so by name and offset.
 *
 * Invariant: nothing is allocated for a length before the image is known to have that many bytes.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';

/** Linux reads at most 2 GiB less a page in one call. */
const MAX_READ_BYTES = 1 << 30;

export abstract class Image {
  /** How messages call it: the file's path, or `PATH (its gzip payload)`. */
  readonly name: string;
  readonly sizeBytes: number;

  protected constructor(name: string, sizeBytes: number) {
    this.name = name;
    this.sizeBytes = sizeBytes;
  }

  /**
   * The `length` bytes at `offset`; `what` they are completes the sentence if they are missing.
   * @throws LivesnapError BAD_IMAGE
   */
  read(offset: number, length: number, what: string): Buffer {
    if (offset + length > this.sizeBytes) {
      throw new LivesnapError(
        'BAD_IMAGE',
        `${this.name} is truncated: ${what} takes ${length} bytes at offset ${hex(offset)}, and the file ends at ${hex(this.sizeBytes)}`,
        { hint: 'Copy or build the file again.' },
      );
    }
    return this.readAt(offset, length);
  }

  /** The first `length` bytes, or as many as there are. */
  head(length: number): Buffer {
    return this.readAt(0, Math.min(length, this.sizeBytes));
  }

  /** The error that says what is wrong, and where. */
  bad(offset: number, problem: string, hint?: string): LivesnapError {
    const details = hint === undefined ? {} : { hint };
    return new LivesnapError('BAD_IMAGE', `${this.name}: ${problem} (offset ${hex(offset)})`, details);
  }

  protected abstract readAt(offset: number, length: number): Buffer;
}

/** An image that is a regular file, open until {@link close}. */
export class ImageFile extends Image {
  readonly #fd: number;

  private constructor(path: string, fd: number, sizeBytes: number) {
    super(path, sizeBytes);
    this.#fd = fd;
  }

  /**
   * Opens `path`; `role` ("kernel", "initrd") completes the sentence if there is no such file.
   * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE
   */
  static open(path: string, role: string): ImageFile {
    let fd: number;
    try {
      // O_NONBLOCK: a FIFO without a writer is refused below, not waited for.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (cause) {
      throw cannotOpen(path, role, cause as NodeJS.ErrnoException);
    }
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new LivesnapError('BAD_IMAGE', `the ${role} ${path} is not a regular file`);
      if (stat.size === 0) throw new LivesnapError('BAD_IMAGE', `the ${role} ${path} is empty`);
      return new ImageFile(path, fd, stat.size);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  protected override readAt(offset: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    let done = 0;
    while (done < length) {
      const count = readSync(this.#fd, bytes, done, Math.min(length - done, MAX_READ_BYTES), offset + done);
      if (count === 0) throw this.bad(offset + done, 'the file became shorter while it was read');
      done += count;
    }
    return bytes;
  }
}

/** An image that is in memory. Reads are views, not copies. */
export class ImageBytes extends Image {
  readonly #bytes: Buffer;

  constructor(name: string, bytes: Buffer) {
    super(name, bytes.length);
    this.#bytes = bytes;
  }

  protected override readAt(offset: number, length: number): Buffer {
    return this.#bytes.subarray(offset, offset + length);
  }
}

function cannotOpen(path: string, role: string, cause: NodeJS.ErrnoException): LivesnapError {
  if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') {
    return new LivesnapError('NO_SUCH_FILE', `there is no ${role} ${path}`, { cause });
  }
  return new LivesnapError('BAD_IMAGE', `the ${role} ${path} cannot be opened: ${cause.code}`, { cause });
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
