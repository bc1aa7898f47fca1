/**
 * The sources of `put`: a regular file without its holes, or anything else as a stream to its end.
 *
 * Invariants:
 * - Pages ascend. The last one may be short. It is padded with zeros, and the region's size is the file's size.
 * - A file may change while it is read. The source ends where a read meets the end: bytes appended before then are
 *   stored, bytes cut off before then are not.
 * - A pipe or terminal that has nothing to read blocks no thread.
 * - Every error names the source.
 */
import {
  accessSync,
  close as closeCallback,
  closeSync,
  constants,
  fstatSync,
  openSync,
  read as readCallback,
  type Stats,
  statSync,
} from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { isatty, ReadStream } from 'node:tty';
import { promisify } from 'node:util';
import { LivesnapError } from '../../errors.js';
import { nextData } from '../../native/files.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource, type Region } from '../../page-stream.js';
import { MAX_REGION_BYTES } from '../snapshot/description.js';
import { type FileName, isFileName, resolveName, shownName } from './file-names.js';
import { hasWriter, IN_USE } from './file-writers.js';

/** The name of a file's only region. */
export const FILE_REGION = 'file';
/** Smaller holes are read, which is faster than a system call for each stretch of data between them. */
const MIN_HOLE_BYTES = 64 << 10;
const BATCH_BYTES = BATCH_PAGES * PAGE_BYTES;

const read = promisify(readCallback);
const close = promisify(closeCallback);

export abstract class FileSource implements PageSource {
  #isCancelled = false;
  readonly #region = { name: FILE_REGION, sizeBytes: 0 };
  readonly sequential = [0];
  readonly regions: readonly Region[] = [this.#region];

  /** `expectedBytes`: the size when the source was opened; null: unknown. */
  constructor(
    readonly name: string,
    readonly expectedBytes: number | null,
  ) {}

  /** Bytes up to the end of the last page that was given, holes included. */
  get sizeBytes(): number {
    return this.#region.sizeBytes;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    if (this.#isCancelled) return null;
    try {
      const pages = await this.fill(into);
      return pages.length > 0 ? { region: 0, pages } : null;
    } catch (error) {
      throw sourceError(this.name, error);
    }
  }

  /** Reads the next pages into `into` and returns their numbers; none at the end. */
  protected abstract fill(into: Uint8Array): Promise<Uint32Array>;

  abstract close(): Promise<void>;

  /** Ends the source early. A stream that has nothing to read fails. */
  cancel(): void {
    this.#isCancelled = true;
    this.stopReading();
  }

  protected stopReading(): void {}

  protected growTo(sizeBytes: number): void {
    requireStorableSize(this.name, sizeBytes);
    this.#region.sizeBytes = sizeBytes;
  }
}

/** A source that can only be read front to back. */
class SequentialSource extends FileSource {
  #ended = false;

  /** `read` fills all of `into`, except at the end. */
  constructor(
    name: string,
    readonly read: (into: Uint8Array) => Promise<number>,
    readonly close: () => Promise<void>,
    protected override readonly stopReading = (): void => {},
  ) {
    super(name, null);
  }

  protected async fill(into: Uint8Array): Promise<Uint32Array> {
    // Not read again after its end: a terminal would give more.
    if (this.#ended) return new Uint32Array(0);
    const first = this.sizeBytes / PAGE_BYTES;
    const got = await this.read(into.subarray(0, BATCH_BYTES));
    this.#ended = got < BATCH_BYTES;
    this.growTo(this.sizeBytes + got);
    const count = padLastPage(into, got);
    return Uint32Array.from({ length: count }, (_, i) => first + i);
  }
}

/** A regular file. */
class PlainFileSource extends FileSource {
  /** Whether to ask the file system for holes. */
  #hasHoles: boolean;
  /** Offset of the next read: a page boundary, except at the end. */
  #at = 0;
  /** The next known hole begins here. */
  #dataEnd = 0;
  #ended = false;

  constructor(
    name: string,
    readonly fd: number,
    { size, blocks }: Stats,
  ) {
    super(name, size);
    this.#hasHoles = blocks * 512 < size;
  }

  protected async fill(into: Uint8Array): Promise<Uint32Array> {
    const pages = new Uint32Array(BATCH_PAGES);
    let count = 0;
    while (count < BATCH_PAGES && !this.#ended) {
      if (this.#at >= this.#dataEnd) this.#skipHole();
      const to = into.subarray(count * PAGE_BYTES, count * PAGE_BYTES + this.#dataEnd - this.#at);
      const got = await readFully(this.fd, to, this.#at);
      const first = this.#at / PAGE_BYTES;
      this.#at += got;
      this.#ended = got < to.length;
      if (got > 0) this.growTo(this.#at);
      for (let i = 0, n = padLastPage(to, got); i < n; i++) pages[count++] = first + i;
      if (this.#ended) this.growTo(Math.max(this.sizeBytes, Math.min(this.#at, fstatSync(this.fd).size)));
    }
    return pages.subarray(0, count);
  }

  /** Moves to the next data, and finds its end: at most little more than a batch further. */
  #skipHole(): void {
    this.#dataEnd = Number.POSITIVE_INFINITY;
    if (!this.#hasHoles) return;
    try {
      let data = nextData(this.fd, this.#at);
      // After the last data, the page in which the file ends is read. It shows whether the file has grown.
      const begin = data?.begin ?? fstatSync(this.fd).size;
      this.#at = Math.max(this.#at, Math.floor(begin / PAGE_BYTES) * PAGE_BYTES);
      while (data) {
        this.#dataEnd = Math.ceil(data.end / PAGE_BYTES) * PAGE_BYTES;
        if (this.#dataEnd - this.#at >= BATCH_BYTES) break;
        data = nextData(this.fd, this.#dataEnd);
        if (data && data.begin - this.#dataEnd >= MIN_HOLE_BYTES) break;
      }
    } catch {
      this.#hasHoles = false; // The file system cannot tell, so the whole file is read.
    }
  }

  close(): Promise<void> {
    return close(this.fd);
  }
}

/** Fills the rest of the last page with zeros; returns the number of pages. */
function padLastPage(into: Uint8Array, bytes: number): number {
  const count = Math.ceil(bytes / PAGE_BYTES);
  into.fill(0, bytes, count * PAGE_BYTES);
  return count;
}

/** Fills `into`, except at the end of the file. `position` null: reads at the descriptor's position. */
async function readFully(fd: number, into: Uint8Array, position: number | null): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const at = position === null ? null : position + done;
    const { bytesRead } = await read(fd, into, done, into.length - done, at);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

function streamReader(stream: Readable): (into: Uint8Array) => Promise<number> {
  const chunks = stream[Symbol.asyncIterator]();
  let rest = new Uint8Array(0);
  return async (into) => {
    let done = 0;
    while (done < into.length) {
      if (rest.length === 0) {
        const next = await chunks.next();
        if (next.done) break;
        rest = typeof next.value === 'string' ? Buffer.from(next.value) : next.value;
        continue;
      }
      const part = rest.subarray(0, into.length - done);
      into.set(part, done);
      done += part.length;
      rest = rest.subarray(part.length);
    }
    return done;
  };
}

function streamSource(name: string, stream: Readable): FileSource {
  const stop = (): void => void stream.destroy();
  return new SequentialSource(name, streamReader(stream), async () => stop(), stop);
}

/**
 * Refuses a source that cannot be stored, before anything is created or waited for. Errors: NO_SUCH_FILE, USAGE (a
 * directory, a socket, more than 16 TiB), NO_PERMISSION, SYSTEM.
 */
export function requireSource(input: FileName): { fd: number | null; stats: Stats } {
  const name = shownName(input);
  try {
    const resolved = resolveName(input);
    const fd = resolved.kind === 'descriptor' ? resolved.fd : null;
    const stats = fd === null ? statSync(input) : fstatSync(fd);
    if (stats.isDirectory())
      throw new LivesnapError('USAGE', `cannot read ${name}: it is a directory`, {
        hint: 'Specify a regular file. To store a directory: tar -c DIRECTORY | livesnap put -',
      });
    if (stats.isSocket() && fd === null)
      throw new LivesnapError('USAGE', `cannot read ${name}: it is a socket`, {
        hint: 'Specify a regular file.',
      });
    if (stats.isFile()) requireStorableSize(name, stats.size);
    if (fd === null) accessSync(input, constants.R_OK);
    return { fd, stats };
  } catch (error) {
    throw sourceError(name, error);
  }
}

/** Errors: those of {@link requireSource}. The caller closes it. */
export function openSource(input: FileName | Readable): FileSource {
  if (input === process.stdin) return streamSource('the standard input', process.stdin);
  if (!isFileName(input)) return streamSource('the stream', input);
  const name = shownName(input);
  const { fd: own, stats } = requireSource(input);
  try {
    if (own === 0 && !stats.isFile() && !stats.isBlockDevice()) return streamSource(name, process.stdin);
    if (own !== null && stats.isSocket())
      return streamSource(name, new Socket({ fd: own, readable: true, writable: false }));
    // Opening a FIFO would block the thread until there is a writer. Reading it waits on the event loop.
    const nonBlocking = stats.isCharacterDevice() ? 0 : constants.O_NONBLOCK;
    const fd = openSync(input, constants.O_RDONLY | constants.O_NOCTTY | nonBlocking);
    const opened = fstatSync(fd);
    if ((opened.isFile() || opened.isBlockDevice()) && hasWriter(fd)) {
      closeSync(fd);
      throw new LivesnapError('NOT_POSSIBLE_NOW', `cannot read ${name}: ${IN_USE}`, {
        hint: 'Stop the other one. A running machine is stored with its disks by livesnap save.',
      });
    }
    if (opened.isFile()) return new PlainFileSource(name, fd, opened);
    if (opened.isFIFO()) return streamSource(name, new Socket({ fd, readable: true, writable: false }));
    if (isatty(fd)) return streamSource(name, new ReadStream(fd));
    return new SequentialSource(
      name,
      (into) => readFully(fd, into, null),
      () => close(fd),
    );
  } catch (error) {
    throw sourceError(name, error);
  }
}

/** Errors: USAGE. */
function requireStorableSize(name: string, sizeBytes: number): void {
  if (sizeBytes > MAX_REGION_BYTES)
    throw new LivesnapError('USAGE', `cannot store ${name}: it is larger than 16 TiB`, {
      hint: 'Split it and store the parts.',
    });
}

function sourceError(name: string, error: unknown): LivesnapError {
  if (error instanceof LivesnapError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const failed = `cannot read ${name}`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LivesnapError('NO_SUCH_FILE', `${failed}: no such file`, {
        hint: 'Check the path.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new LivesnapError('NO_PERMISSION', `${failed}: permission denied`, {
        hint: 'Run livesnap as a user who can read it.',
        cause: error,
      });
    case 'EIO':
      return new LivesnapError('SYSTEM', `${failed}: ${message}`, {
        hint: 'Nothing was stored. The kernel log (dmesg) may say why it cannot be read.',
        cause: error,
      });
    default:
      return new LivesnapError('SYSTEM', `${failed}: ${message}`, {
        hint: 'Nothing was stored.',
        cause: error,
      });
  }
}
