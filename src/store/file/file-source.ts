/**
 * What `put` reads: a plain file without its holes, or anything else as a stream to its end.
 *
 * Invariants: pages ascend; the last one may be short and is given padded with zeros, the region's size says how short.
 * A file may change while it is read: what is given ends where reading meets the end, so that what was appended before
 * then is in it and what was cut off is not. No thread is blocked by a pipe or terminal that has nothing to read.
 * Every error names the source.
 */
import {
  accessSync,
  close as closeCallback,
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
import { type FileName, meaningOf, shownName } from './file-names.js';

/** The name of a file's only region. */
export const FILE_REGION = 'file';
/** Smaller holes are read: that is faster than a call for what lies between them. */
const MIN_HOLE_BYTES = 64 << 10;
const BATCH_BYTES = BATCH_PAGES * PAGE_BYTES;

const read = promisify(readCallback);
const close = promisify(closeCallback);

export abstract class FileSource implements PageSource {
  readonly #region = { name: FILE_REGION, sizeBytes: 0 };
  readonly regions: readonly Region[] = [this.#region];

  /** `expectedBytes`: what there was to read at the beginning; null: nobody knows. */
  constructor(
    readonly name: string,
    readonly expectedBytes: number | null,
  ) {}

  /** So much has been given, holes included. */
  get sizeBytes(): number {
    return this.#region.sizeBytes;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    try {
      const pages = await this.fill(into);
      return pages.length > 0 ? { region: 0, pages } : null;
    } catch (error) {
      throw sourceError(this.name, error);
    }
  }

  /** Gives the next pages; none: the end has been reached. */
  protected abstract fill(into: Uint8Array): Promise<Uint32Array>;

  abstract close(): Promise<void>;

  protected reach(sizeBytes: number): void {
    requireStorableSize(this.name, sizeBytes);
    this.#region.sizeBytes = sizeBytes;
  }
}

/** Bytes that come one after the other. */
class SequentialSource extends FileSource {
  #ended = false;

  /** `read` fills as much of `into` as there is, and less only at the end. */
  constructor(
    name: string,
    readonly read: (into: Uint8Array) => Promise<number>,
    readonly close: () => Promise<void>,
  ) {
    super(name, null);
  }

  protected async fill(into: Uint8Array): Promise<Uint32Array> {
    // Once it has said that it ends it is not asked again: a terminal would go on.
    if (this.#ended) return new Uint32Array(0);
    const first = this.sizeBytes / PAGE_BYTES;
    const got = await this.read(into.subarray(0, BATCH_BYTES));
    this.#ended = got < BATCH_BYTES;
    this.reach(this.sizeBytes + got);
    const count = padLastPage(into, got);
    return Uint32Array.from({ length: count }, (_, i) => first + i);
  }
}

/** A plain file. */
class PlainFileSource extends FileSource {
  /** Whether the file system can be asked for holes. */
  #hasHoles: boolean;
  /** A page boundary, until the end. */
  #at = 0;
  /** Up to here there is no hole that was found. */
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
      if (got > 0) this.reach(this.#at);
      for (let i = 0, n = padLastPage(to, got); i < n; i++) pages[count++] = first + i;
      if (this.#ended) this.reach(Math.max(this.sizeBytes, Math.min(this.#at, fstatSync(this.fd).size)));
    }
    return pages.subarray(0, count);
  }

  /** Goes to the next data, if it is not there, and finds where it ends: at most little more than a batch on. */
  #skipHole(): void {
    this.#dataEnd = Number.POSITIVE_INFINITY;
    if (!this.#hasHoles) return;
    try {
      let data = nextData(this.fd, this.#at);
      // After the last data: the page that the file ends in is read, and shows whether the file has grown.
      const begin = data?.begin ?? fstatSync(this.fd).size;
      this.#at = Math.max(this.#at, Math.floor(begin / PAGE_BYTES) * PAGE_BYTES);
      while (data) {
        this.#dataEnd = Math.ceil(data.end / PAGE_BYTES) * PAGE_BYTES;
        if (this.#dataEnd - this.#at >= BATCH_BYTES) break;
        data = nextData(this.fd, this.#dataEnd);
        if (data && data.begin - this.#dataEnd >= MIN_HOLE_BYTES) break;
      }
    } catch {
      this.#hasHoles = false; // the file system does not say: all is read
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

/** Fills `into`, or as much as there is. `position` null: from where the descriptor stands. */
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

const streamSource = (name: string, stream: Readable): FileSource =>
  new SequentialSource(name, streamReader(stream), async () => void stream.destroy());

/**
 * Refuses what cannot be stored, before anything is made or waited for. Errors: NO_SUCH_FILE, USAGE (a directory, a
 * socket, more than 16 TiB), SYSTEM.
 */
export function requireSource(input: FileName): { fd: number | null; stats: Stats } {
  const name = shownName(input);
  try {
    const meaning = meaningOf(input);
    const fd = meaning.kind === 'descriptor' ? meaning.fd : null;
    const stats = fd === null ? statSync(input) : fstatSync(fd);
    if (stats.isDirectory())
      throw new LivesnapError('USAGE', `cannot read ${name}: it is a directory`, {
        hint: 'Name a file. To store a directory: tar -c DIRECTORY | livesnap put -',
      });
    if (stats.isSocket() && fd === null)
      throw new LivesnapError('USAGE', `cannot read ${name}: it is a socket`, { hint: 'Name a file.' });
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
  if (typeof input !== 'string' && !Buffer.isBuffer(input)) return streamSource('the stream', input);
  const name = shownName(input);
  const { fd: own, stats } = requireSource(input);
  try {
    if (own === 0 && !stats.isFile() && !stats.isBlockDevice()) return streamSource(name, process.stdin);
    if (own !== null && stats.isSocket())
      return streamSource(name, new Socket({ fd: own, readable: true, writable: false }));
    // Opening a FIFO waits for a writer and blocks the thread. Reading it waits as well, on the event loop.
    const nonBlocking = stats.isCharacterDevice() ? 0 : constants.O_NONBLOCK;
    const fd = openSync(input, constants.O_RDONLY | constants.O_NOCTTY | nonBlocking);
    const opened = fstatSync(fd);
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
      hint: 'Store it in parts.',
    });
}

function sourceError(name: string, error: unknown): LivesnapError {
  if (error instanceof LivesnapError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const failed = `cannot read ${name}`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LivesnapError('NO_SUCH_FILE', `${failed}: there is no such file`, {
        hint: 'Check the path.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new LivesnapError('SYSTEM', `${failed}: permission denied`, {
        hint: 'Run livesnap as a user who may read it.',
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
