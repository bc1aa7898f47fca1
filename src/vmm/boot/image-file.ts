/**
 * The bytes of an image, read by offset. An image is a file, or a payload that was unpacked from one. Errors name the
 * image and the offset.
 *
 * Invariant: a length is compared with the size of the image before memory is allocated for it.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';

/** Linux reads at most 2 GiB less a page in one call. */
const MAX_READ_BYTES = 1 << 30;

export abstract class Image {
  /** The name for errors: the file's path, or `PATH (its gzip payload)`. */
  readonly name: string;
  readonly sizeBytes: number;

  protected constructor(name: string, sizeBytes: number) {
    this.name = name;
    this.sizeBytes = sizeBytes;
  }

  /**
   * The `length` bytes at `offset`. `what` names them in the error: "the kernel".
   * @throws LivesnapError BAD_IMAGE
   */
  read(offset: number, length: number, what: string): Buffer {
    if (offset + length > this.sizeBytes) {
      throw new LivesnapError(
        'BAD_IMAGE',
        `${this.name} is truncated: ${what} takes ${length} bytes at offset ${hex(offset)}, but the file ends at ${hex(this.sizeBytes)}`,
        { hint: 'Copy or build the file again.' },
      );
    }
    return this.readAt(offset, length);
  }

  /** The first `length` bytes, or all if the image is shorter. */
  head(length: number): Buffer {
    return this.readAt(0, Math.min(length, this.sizeBytes));
  }

  /** A BAD_IMAGE error that names the image and the offset. */
  bad(offset: number, problem: string, hint?: string): LivesnapError {
    const details = hint === undefined ? {} : { hint };
    return new LivesnapError('BAD_IMAGE', `${this.name}: ${problem} (offset ${hex(offset)})`, details);
  }

  protected abstract readAt(offset: number, length: number): Buffer;
}

/** An image in a regular file. */
export class ImageFile extends Image {
  readonly #fd: number;

  private constructor(path: string, fd: number, sizeBytes: number) {
    super(path, sizeBytes);
    this.#fd = fd;
  }

  /**
   * Opens `path`. `role` names it in errors: "kernel", "initrd".
   * @throws LivesnapError NO_SUCH_FILE, BAD_IMAGE
   */
  static open(path: string, role: string): ImageFile {
    let fd: number;
    try {
      // Without O_NONBLOCK, opening a FIFO would wait for a writer. It is refused below.
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
      if (count === 0) throw this.bad(offset + done, 'the file was truncated while livesnap read it');
      done += count;
    }
    return bytes;
  }
}

/** An image in memory. Reads return views, not copies. */
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
