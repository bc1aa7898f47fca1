/**
 * Any file as a snapshot: `put` reads a file or a stream into a save, `get` writes one back.
 *
 * Invariants: the last page may be short and is stored padded with zeros, the region's size says how short; a file
 * under the wanted name is there whole or not at all; only a plain file is ever replaced; zero pages become holes.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  createWriteStream,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { LivesnapError } from '../errors.js';
import {
  BATCH_PAGES,
  PAGE_SIZE,
  type PageRun,
  type PageSink,
  type PageSource,
  type Region,
} from '../page-stream.js';
import type { StoreContext } from './context.js';
import { DamageError } from './damage.js';
import { BLOCK_PAGES } from './format.js';
import { createPrivate, removeIfThere } from './layout.js';
import { readBlock } from './manifest.js';
import type { PackSet } from './pack-reader.js';
import type { StoredSnapshot } from './restore.js';
import { Save } from './save.js';
import { type BlockEntry, MAX_REGION_BYTES, pagesOfBlock, type SnapshotFile } from './snapshot-file.js';
import { requireTagLabel } from './tags.js';
import type { Progress, SaveResult } from './types.js';

/** The name of a file's only region. */
const FILE_REGION = 'file';
const BATCH_BYTES = BATCH_PAGES * PAGE_SIZE;

/** Pages of bytes that come one after the other. */
class SequentialSource implements PageSource {
  readonly #region = { name: FILE_REGION, sizeBytes: 0 };
  readonly regions: readonly Region[] = [this.#region];

  /** `read` fills as much of `into` as there is, and less only at the end. */
  constructor(readonly read: (into: Uint8Array) => Promise<number>) {}

  get sizeBytes(): number {
    return this.#region.sizeBytes;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const first = this.#region.sizeBytes / PAGE_SIZE;
    // After a short batch there is no more, and asking again would begin within a page.
    if (!Number.isInteger(first)) return null;
    const got = await this.read(into);
    if (got === 0) return null;
    this.#region.sizeBytes += got;
    if (this.#region.sizeBytes > MAX_REGION_BYTES)
      throw new LivesnapError('BAD_IMAGE', 'a file in a store can have at most 16 TiB');
    const count = Math.ceil(got / PAGE_SIZE);
    into.fill(0, got, count * PAGE_SIZE);
    return { region: 0, pages: Uint32Array.from({ length: count }, (_, i) => first + i) };
  }
}

function fileReader(fd: number): (into: Uint8Array) => Promise<number> {
  let position = 0;
  return async (into) => {
    let done = 0;
    while (done < BATCH_BYTES) {
      const got = readSync(fd, into, done, BATCH_BYTES - done, position);
      if (got === 0) break;
      done += got;
      position += got;
    }
    return done;
  };
}

function streamReader(stream: Readable): (into: Uint8Array) => Promise<number> {
  const chunks = stream[Symbol.asyncIterator]();
  let rest = new Uint8Array(0);
  return async (into) => {
    let done = 0;
    while (done < BATCH_BYTES) {
      if (rest.length === 0) {
        const next = await chunks.next();
        if (next.done) break;
        rest = typeof next.value === 'string' ? Buffer.from(next.value) : next.value;
        continue;
      }
      const part = rest.subarray(0, BATCH_BYTES - done);
      into.set(part, done);
      done += part.length;
      rest = rest.subarray(part.length);
    }
    return done;
  };
}

/** Errors: NO_SUCH_FILE, USAGE, and those of a save. */
export async function putFile(
  context: StoreContext,
  input: string | Readable,
  options: { tag: string | null; name: string | null },
  progress?: Progress,
): Promise<SaveResult> {
  if (options.tag !== null) requireTagLabel(options.tag);
  if (typeof input !== 'string') {
    try {
      return await putPages(context, streamReader(input), null, options, progress);
    } finally {
      input.destroy();
    }
  }
  const fd = openForReading(input);
  try {
    const name = options.name ?? basename(input);
    const size = statSync(input).size;
    return await putPages(context, fileReader(fd), size, { tag: options.tag, name }, progress);
  } finally {
    closeSync(fd);
  }
}

async function putPages(
  context: StoreContext,
  read: (into: Uint8Array) => Promise<number>,
  totalBytes: number | null,
  { tag, name }: { tag: string | null; name: string | null },
  progress?: Progress,
): Promise<SaveResult> {
  const save = await Save.begin(context, null);
  try {
    const source = new SequentialSource(read);
    await save.store(source, (doneBytes) => progress?.(doneBytes, totalBytes));
    return await save.commit({
      kind: 'file',
      vm: name,
      tag,
      memoryBytes: source.sizeBytes,
      diskBytes: 0,
      machine: null,
      host: null,
      state: new Uint8Array(0),
    });
  } catch (error) {
    await save.abort();
    throw error;
  }
}

function openForReading(path: string): number {
  let problem: string;
  try {
    if (!statSync(path).isDirectory()) return openSync(path, 'r');
    problem = 'it is a directory';
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    problem = code === 'ENOENT' ? 'there is no such file' : message;
  }
  throw new LivesnapError('NO_SUCH_FILE', `cannot read ${path}: ${problem}`, {
    hint: 'Name a file that exists and may be read.',
  });
}

function fileBytes({ summary, regions }: StoredSnapshot): number {
  const sizeBytes = regions.find(({ name }) => name === FILE_REGION)?.sizeBytes;
  if (summary.kind !== 'file' || sizeBytes === undefined)
    throw new LivesnapError('USAGE', `snapshot ${summary.id} is of a machine, not of a file`, {
      hint: 'Use livesnap restore for machines.',
    });
  return sizeBytes;
}

/**
 * Writes the file to a stream, front to back, each block of 512 pages when all of it has been verified. What was
 * written before damage is met is right, and too little. Errors: USAGE, DAMAGED, SYSTEM (the stream was closed).
 */
export async function streamFile(
  snapshot: StoredSnapshot,
  output: Writable,
  progress?: Progress,
): Promise<{ bytes: number }> {
  const sizeBytes = fileBytes(snapshot);
  const packs = snapshot.context.packSet();
  try {
    await pipeline(blocksOf(snapshot, packs, sizeBytes, progress), output, { end: false });
    return { bytes: sizeBytes };
  } catch (error) {
    if (error instanceof DamageError) throw error.in(snapshot.summary.id);
    if (error instanceof LivesnapError) throw error;
    throw new LivesnapError('SYSTEM', `the output was closed: ${(error as Error).message}`, { cause: error });
  } finally {
    packs.close();
  }
}

function* blocksOfFile({ description, blocks }: SnapshotFile): Generator<BlockEntry> {
  const region = description.regions.findIndex(({ name }) => name === FILE_REGION);
  for (const entry of blocks) if (entry.region === region) yield entry;
}

async function* blocksOf(
  { context, file }: StoredSnapshot,
  packs: PackSet,
  sizeBytes: number,
  progress?: Progress,
): AsyncGenerator<Buffer> {
  const { ops } = context;
  const blockBytes = BLOCK_PAGES * PAGE_SIZE;
  const entries = blocksOfFile(file);
  let next = entries.next();
  const hashes = new Uint32Array(BLOCK_PAGES * 2);
  for (let at = 0, number = 0; at < sizeBytes; at += blockBytes, number++) {
    const entry = next.done || next.value.block !== number ? null : next.value;
    const bytes = Buffer.alloc(blockBytes);
    if (entry) {
      next = entries.next();
      const block = readBlock(ops, packs, entry, pagesOfBlock(file.description.regions, entry));
      for (let page = 0; page < BLOCK_PAGES; page++) {
        if (block.isZero(page)) continue;
        const chunk = packs.chunk(block.places[2 * page]!, block.places[2 * page + 1]!);
        bytes.set(chunk.bytes.subarray(chunk.offset, chunk.offset + PAGE_SIZE), page * PAGE_SIZE);
      }
      ops.hashPages(bytes, BLOCK_PAGES, new Uint8Array(hashes.buffer));
      const wrong = hashes.findIndex((word, i) => word !== block.fingerprints[i]);
      if (wrong >= 0) {
        const pack = block.places[wrong & ~1]!;
        throw new DamageError(packs.pack(pack).file, null, 'a chunk is not the page that was saved');
      }
    }
    yield bytes.subarray(0, Math.min(blockBytes, sizeBytes - at));
    progress?.(Math.min(sizeBytes, at + blockBytes), sizeBytes);
  }
}

/**
 * Writes the file to what `path` names: a plain file, also by way of links, is replaced when the new one is whole; a
 * FIFO or a character device is written to as a stream. Errors: USAGE (anything else), NO_SPACE, READ_ONLY,
 * NO_SUCH_FILE, DAMAGED. Afterwards the snapshot is still open.
 */
export async function getFile(
  snapshot: StoredSnapshot,
  path: string,
  progress?: Progress,
): Promise<{ bytes: number }> {
  const sizeBytes = fileBytes(snapshot);
  let temporary: string | null = null;
  let fd: number | null = null;
  try {
    const target = findTarget(path);
    if (target.isStream) return await writeThrough(snapshot, path, sizeBytes, progress);
    temporary = join(dirname(target.path), `.livesnap-${randomBytes(8).toString('hex')}.tmp`);
    fd = createPrivate(temporary);
    ftruncateSync(fd, sizeBytes);
    await snapshot.fill(new FileSink(fd, sizeBytes), progress);
    fsyncSync(fd);
    renameSync(temporary, target.path);
  } catch (error) {
    if (fd !== null) removeIfThere(temporary!);
    throw targetError(path, error);
  } finally {
    if (fd !== null) closeSync(fd);
  }
  return { bytes: sizeBytes };
}

/** What a name stands for, links followed: a name for a plain file, whether it is there or not, or a stream. */
function findTarget(path: string): { path: string; isStream: boolean } {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) return { path: endOfLinks(path), isStream: false };
  if (stat.isFile()) return { path: realpathSync(path), isStream: false };
  if (stat.isFIFO() || stat.isCharacterDevice()) return { path, isStream: true };
  const [what, hint] = stat.isDirectory()
    ? ['a directory', 'Name a file.']
    : stat.isBlockDevice()
      ? ['a block device', 'To write over what is on it: livesnap get SNAPSHOT - | dd of=DEVICE bs=1M.']
      : ['a socket', 'Name a file.'];
  throw new LivesnapError('USAGE', `cannot write ${path}: it is ${what}`, { hint });
}

/** The name at the end of links that lead to nothing yet; the kernel has followed them, so they end. */
function endOfLinks(path: string): string {
  while (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink())
    path = resolve(realpathSync(dirname(path)), readlinkSync(path));
  return path;
}

/** Waits for a reader of a FIFO. What has been written when it fails cannot be taken back. */
async function writeThrough(
  snapshot: StoredSnapshot,
  path: string,
  sizeBytes: number,
  progress?: Progress,
): Promise<{ bytes: number }> {
  const packs = snapshot.context.packSet();
  try {
    const output = createWriteStream(path, { flags: constants.O_WRONLY as unknown as string });
    await pipeline(blocksOf(snapshot, packs, sizeBytes, progress), output);
    return { bytes: sizeBytes };
  } catch (error) {
    throw error instanceof DamageError ? error.in(snapshot.summary.id) : error;
  } finally {
    packs.close();
  }
}

function targetError(path: string, error: unknown): unknown {
  if (error instanceof LivesnapError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const target = `cannot write ${path}`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LivesnapError('NO_SUCH_FILE', `${target}: there is no such directory`, { cause: error });
    case 'ENOSPC':
    case 'EDQUOT':
    case 'EFBIG':
      return new LivesnapError('NO_SPACE', `${target}: the disk is full`, { cause: error });
    case 'EROFS':
    case 'EACCES':
    case 'EPERM':
      return new LivesnapError('READ_ONLY', `${target}: it may not be written`, { cause: error });
    default:
      return typeof code === 'string'
        ? new LivesnapError('SYSTEM', `${target}: ${message}`, { cause: error })
        : error;
  }
}

/** Writes each run of neighbouring pages with one call; what is never written stays a hole. */
class FileSink implements PageSink {
  readonly regions: readonly Region[];

  constructor(
    readonly fd: number,
    readonly sizeBytes: number,
  ) {
    this.regions = [{ name: FILE_REGION, sizeBytes }];
  }

  write({ pages }: PageRun, bytes: Uint8Array): void {
    for (let from = 0; from < pages.length; ) {
      let to = from + 1;
      while (to < pages.length && pages[to] === pages[from]! + to - from) to++;
      const position = pages[from]! * PAGE_SIZE;
      const end = Math.min(from * PAGE_SIZE + this.sizeBytes - position, to * PAGE_SIZE);
      for (let at = from * PAGE_SIZE; at < end; )
        at += writeSync(this.fd, bytes, at, end - at, position + at - from * PAGE_SIZE);
      from = to;
    }
  }
}
