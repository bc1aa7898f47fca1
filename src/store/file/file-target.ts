/**
 * What `get` writes: a plain file that is replaced when the new one is whole, or anything else as a stream.
 *
 * Invariants: only a plain file is ever replaced, and never one that a name of an open descriptor stands for; an
 * existing file keeps its mode, owner, access list and extended attributes, as far as the caller may set them; a new
 * one gets what umask and directory say. No file of the store is a target. Every error names the target.
 */
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  createWriteStream,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsync as fsyncCallback,
  ftruncateSync,
  openSync,
  readlinkSync,
  realpathSync,
  renameSync,
  type Stats,
  statSync,
  unlinkSync,
  write as writeCallback,
} from 'node:fs';
import { Socket } from 'node:net';
import { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { LivesnapError } from '../../errors.js';
import { copyAttributes } from '../../native/files.js';
import { PAGE_BYTES, type PageRun, type PageSink, type Region } from '../../page-stream.js';
import { type FileName, isInProcfs, type Meaning, meaningOf, shownName } from './file-names.js';
import { FILE_REGION } from './file-source.js';

/** How often is looked for a reader of a FIFO. */
const READER_POLL_MS = 50;

const fsync = promisify(fsyncCallback);
const write = promisify(writeCallback);

interface Found {
  /** As it is shown. */
  readonly name: string;
  /** What is there; null: nothing yet. */
  readonly stats: Stats | null;
}

export interface FileTarget extends Found {
  readonly kind: 'file';
  readonly path: Buffer;
  readonly directory: Buffer;
}

export interface StreamTarget extends Found {
  readonly kind: 'stream';
  readonly path: FileName;
  /** The descriptor of this process that the name stands for. */
  readonly fd: number | null;
}

export type Target = FileTarget | StreamTarget;

/** Looks at what a name stands for and makes nothing. Errors: USAGE, NO_SUCH_FILE, NO_PERMISSION, READ_ONLY, SYSTEM. */
export function findTarget(to: FileName, storeDir: string): Target {
  const name = shownName(to);
  const refuse = (why: string, hint = 'Name a file.'): LivesnapError =>
    new LivesnapError('USAGE', `cannot write ${name}: ${why}`, { hint });
  try {
    const found = statSync(to, { throwIfNoEntry: false }) ?? null;
    if (found?.isDirectory()) throw refuse('it is a directory');
    const meaning = meaningOf(to);
    requireOutside(meaning, storeDir, refuse);
    if (meaning.kind === 'descriptor') {
      const stats = fstatSync(meaning.fd);
      // Such as an epoll or an eventfd.
      if ((stats.mode & constants.S_IFMT) === 0) throw refuse('it is no file');
      return { kind: 'stream', name, stats, path: to, fd: meaning.fd };
    }
    if (found?.isFIFO() || found?.isCharacterDevice())
      return { kind: 'stream', name, stats: found, path: to, fd: null };
    if (found?.isBlockDevice())
      throw refuse(
        'it is a block device',
        'To write over what is on it: livesnap get SNAPSHOT - | dd of=DEVICE bs=1M.',
      );
    if (found?.isSocket()) throw refuse('it is a socket');
    if (meaning.kind === 'foreign') throw refuse('another process has it open', 'Name the file itself.');
    if (found) {
      if (found.nlink > 1)
        throw refuse(
          `it has ${found.nlink} hard links, and only one of them would be replaced`,
          `Remove it first, or write into it: livesnap get SNAPSHOT - >${name}`,
        );
      accessSync(to, constants.W_OK);
    }
    // By the time of writing the descriptor may be there, and another's.
    if (!found && isInProcfs(meaning.directory))
      throw new LivesnapError('NO_SUCH_FILE', `cannot write ${name}: no such file is open`, {
        hint: 'Redirect the descriptor to a file, or name a file.',
      });
    return { ...meaning, kind: 'file', name, stats: found };
  } catch (error) {
    throw targetError(name, error);
  }
}

function requireOutside(
  meaning: Meaning,
  storeDir: string,
  refuse: (why: string, hint: string) => Error,
): void {
  // Only Linux says which file a descriptor is.
  if (meaning.kind !== 'path' && process.platform !== 'linux') return;
  let store: string;
  try {
    store = realpathSync.native(storeDir, 'buffer').toString('latin1');
  } catch {
    return; // there is no store
  }
  const place =
    meaning.kind === 'path'
      ? realpathSync.native(meaning.directory, 'buffer').toString('latin1')
      : readlinkSync(meaning.kind === 'foreign' ? meaning.path : `/proc/self/fd/${meaning.fd}`, 'latin1');
  if (`${place}/`.startsWith(`${store}/`))
    throw refuse('it is in the store', 'Name a file elsewhere: the files of a store are its own.');
}

/** A new file under a temporary name, which takes the place of the target when it is whole. */
export class FileReplacement implements PageSink {
  readonly regions: readonly Region[];
  readonly #temporary: Buffer;
  readonly #fd: number;
  #isOpen = true;

  /** Errors: NO_SPACE, NO_PERMISSION, READ_ONLY, NO_SUCH_FILE, SYSTEM. */
  constructor(
    readonly target: FileTarget,
    readonly sizeBytes: number,
  ) {
    this.regions = [{ name: FILE_REGION, sizeBytes }];
    const temporary = `.livesnap-${randomBytes(8).toString('hex')}.tmp`;
    this.#temporary = Buffer.concat([target.directory, Buffer.from(`/${temporary}`)]);
    try {
      // What replaces a file may hold what not everybody was to read there: its mode comes last.
      const mode = target.stats ? 0o600 : 0o666;
      this.#fd = openSync(this.#temporary, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, mode);
    } catch (error) {
      throw replacementError(target, error);
    }
    try {
      ftruncateSync(this.#fd, sizeBytes);
    } catch (error) {
      this.abandon();
      throw targetError(target.name, error);
    }
  }

  /** Writes each run of neighbouring pages with one call; what is never written stays a hole. */
  async write({ pages }: PageRun, bytes: Uint8Array): Promise<void> {
    try {
      for (let from = 0; from < pages.length; ) {
        let to = from + 1;
        while (to < pages.length && pages[to] === pages[from]! + to - from) to++;
        const position = pages[from]! * PAGE_BYTES;
        const end = Math.min(from * PAGE_BYTES + this.sizeBytes - position, to * PAGE_BYTES);
        await writeFully(this.#fd, bytes, from * PAGE_BYTES, end, position);
        from = to;
      }
    } catch (error) {
      throw targetError(this.target.name, error);
    }
  }

  /** Errors: as the constructor. */
  async commit(): Promise<void> {
    const { path, stats } = this.target;
    try {
      if (stats) keepAttributes(this.#fd, path, stats);
      await fsync(this.#fd);
      renameSync(this.#temporary, path);
    } catch (error) {
      throw replacementError(this.target, error);
    }
    this.#isOpen = false;
    closeSync(this.#fd);
  }

  /** Does nothing after a commit. */
  abandon(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.#fd);
    try {
      unlinkSync(this.#temporary);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw targetError(this.target.name, error);
    }
  }
}

/**
 * Gives the new file what belongs to the old one. The set-user-ID and set-group-ID bits go, as with any write; where
 * the group cannot be kept, the caller's group does not get its rights.
 */
function keepAttributes(fd: number, path: Buffer, { mode, uid, gid }: Stats): void {
  for (const [owner, group] of [
    [uid, gid],
    [-1, gid],
  ] as const) {
    const now = fstatSync(fd);
    if (now.uid === uid && now.gid === gid) break;
    try {
      fchownSync(fd, owner, group);
    } catch {
      // The caller may not.
    }
  }
  try {
    const old = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      copyAttributes(old, fd);
    } finally {
      closeSync(old);
    }
  } catch {
    // The caller may not read it.
  }
  fchmodSync(fd, fstatSync(fd).gid === gid ? mode & 0o777 : mode & 0o707);
}

/** When it is the stream of this process's descriptor 1, which Workers do not have. */
export const standardOutput = (output: Writable): StreamTarget | null =>
  output === process.stdout && process.stdout.fd === 1
    ? { kind: 'stream', name: 'the standard output', stats: fstatSync(1), path: '/dev/stdout', fd: 1 }
    : null;

/** Opens what is written front to back. `end`: whether it is to be ended, which closes it if it was opened here. */
export async function openStream({
  name,
  stats,
  path,
  fd,
}: StreamTarget): Promise<{ output: Writable; end: boolean }> {
  try {
    // At the descriptor's position, or at the end if it appends.
    if (fd !== null && (stats?.isFile() || stats?.isBlockDevice()))
      return { output: descriptorStream(fd), end: true };
    if (fd === 1) return { output: process.stdout, end: false };
    if (fd === 2) return { output: process.stderr, end: false };
    if (fd !== null && stats?.isSocket())
      return { output: new Socket({ fd, readable: false, writable: true }), end: true };
    if (stats?.isFIFO())
      return { output: new Socket({ fd: await openFifo(path), readable: false, writable: true }), end: true };
    const flags = (constants.O_WRONLY | constants.O_NOCTTY) as unknown as string;
    return { output: createWriteStream(path, { flags }), end: true };
  } catch (error) {
    throw targetError(name, error);
  }
}

/** A descriptor as a stream that leaves it open, as that of fs does not when it fails. */
const descriptorStream = (fd: number): Writable =>
  new Writable({
    write(chunk: Buffer, _encoding, done) {
      writeFully(fd, chunk, 0, chunk.length, null).then(() => done(), done);
    },
  });

/** `position` null: where the descriptor stands. */
async function writeFully(
  fd: number,
  bytes: Uint8Array,
  from: number,
  to: number,
  position: number | null,
): Promise<void> {
  for (let at = from; at < to; ) {
    const there = position === null ? null : position + at - from;
    at += (await write(fd, bytes, at, to - at, there)).bytesWritten;
  }
}

/** Waits for a reader. A call that waits would keep its thread, and a thread keeps the process from ending. */
async function openFifo(path: FileName): Promise<number> {
  for (;;) {
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await delay(READER_POLL_MS);
  }
}

/** The target's error for what a system call or a stream said of it. */
export function targetError(name: string, error: unknown): LivesnapError {
  if (error instanceof LivesnapError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const failed = `cannot write ${name}`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LivesnapError('NO_SUCH_FILE', `${failed}: there is no such directory`, {
        hint: 'Check the path.',
        cause: error,
      });
    case 'ENOSPC':
      return new LivesnapError('NO_SPACE', `${failed}: its disk is full`, {
        hint: `Free some space there, or write to another disk.`,
        cause: error,
      });
    case 'EDQUOT':
      return new LivesnapError('NO_SPACE', `${failed}: the disk quota is used up`, {
        hint: `Free some space there, or write to another disk.`,
        cause: error,
      });
    case 'EFBIG':
      return new LivesnapError('SYSTEM', `${failed}: the file is too large`, {
        hint: 'Write to a file system that can hold it; ulimit -f shows the limit of the process.',
        cause: error,
      });
    case 'EROFS':
      return new LivesnapError('READ_ONLY', `${failed}: its file system is read-only`, {
        hint: 'Name a file on a file system that can be written.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new LivesnapError('NO_PERMISSION', `${failed}: it may not be written`, {
        hint: 'Name a file that you may write.',
        cause: error,
      });
    default:
      return new LivesnapError('SYSTEM', `${failed}: ${message}`, { cause: error });
  }
}

/** Where a file is there, it may be writable although its directory is not, or be a mount point. */
function replacementError({ name, stats }: Target, error: unknown): LivesnapError {
  const { code } = error as NodeJS.ErrnoException;
  const isForbidden = code === 'EACCES' || code === 'EPERM';
  if (stats && (isForbidden || code === 'EROFS' || code === 'EBUSY'))
    return new LivesnapError(
      isForbidden ? 'NO_PERMISSION' : 'READ_ONLY',
      `cannot write ${name}: it cannot be replaced where it is`,
      {
        hint: `Write into it, which is not undone when it fails: livesnap get SNAPSHOT - >${name}`,
        cause: error,
      },
    );
  return targetError(name, error);
}
