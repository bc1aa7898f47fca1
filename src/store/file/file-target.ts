/**
 * The targets of `get`: a regular file, which is replaced once the new one is complete, or anything else as a stream.
 *
 * Invariants:
 * - Only a regular file is replaced, and never one that was named by an open descriptor.
 * - A replaced file keeps its mode, owner, access list and extended attributes, as far as the caller may set them. A
 *   new file gets its mode from umask and its directory.
 * - No file of the store is a target.
 * - Every error names the target.
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
import {
  type FileName,
  isInProcfs,
  type ResolvedName,
  realPath,
  resolveName,
  shownName,
} from './file-names.js';
import { hasWriter, IN_USE } from './file-writers.js';

/** Interval between attempts to open a FIFO that has no reader. */
const READER_POLL_MS = 50;

const fsync = promisify(fsyncCallback);
const write = promisify(writeCallback);

interface Found {
  /** For people to read. */
  readonly name: string;
  /** Null: the file does not exist yet. */
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
  /** The descriptor of this process that was named, if any. */
  readonly fd: number | null;
}

export type Target = FileTarget | StreamTarget;

/** Resolves a name and creates nothing. Errors: USAGE, NO_SUCH_FILE, NO_PERMISSION, READ_ONLY, SYSTEM. */
export function findTarget(to: FileName, storeDir: string): Target {
  const name = shownName(to);
  const refuse = (why: string, hint = 'Specify a regular file.'): LivesnapError =>
    new LivesnapError('USAGE', `cannot write ${name}: ${why}`, { hint });
  try {
    const found = statSync(to, { throwIfNoEntry: false }) ?? null;
    if (found?.isDirectory()) throw refuse('it is a directory');
    const resolved = resolveName(to);
    requireOutside(resolved, storeDir, refuse);
    if (resolved.kind === 'descriptor') {
      const stats = fstatSync(resolved.fd);
      // An epoll descriptor or an eventfd, for example.
      if ((stats.mode & constants.S_IFMT) === 0) throw refuse('it is not a file');
      return { kind: 'stream', name, stats, path: to, fd: resolved.fd };
    }
    if (found?.isFIFO() || found?.isCharacterDevice())
      return { kind: 'stream', name, stats: found, path: to, fd: null };
    if (found?.isBlockDevice())
      throw refuse(
        'it is a block device',
        'To overwrite its contents: livesnap get SNAPSHOT - | dd of=DEVICE bs=1M',
      );
    if (found?.isSocket()) throw refuse('it is a socket');
    if (resolved.kind === 'foreign')
      throw refuse('another process has it open', 'Specify the path of the file instead.');
    if (found) {
      if (found.nlink > 1)
        throw refuse(
          `it has ${found.nlink} hard links, and only one of them would be replaced`,
          `Delete it first, or overwrite its contents: livesnap get SNAPSHOT - >${name}`,
        );
      accessSync(to, constants.W_OK);
      requireNoWriter(to, name);
    }
    // Refused now: by the time of writing, something else may have opened this descriptor.
    if (!found && isInProcfs(resolved.directory))
      throw new LivesnapError('NO_SUCH_FILE', `cannot write ${name}: no such open file`, {
        hint: 'Redirect the descriptor to a file, or specify a file.',
      });
    return { ...resolved, kind: 'file', name, stats: found };
  } catch (error) {
    throw targetError(name, error);
  }
}

/** A machine would go on with the file that was replaced, and what it writes would be lost. Errors: NOT_POSSIBLE_NOW. */
function requireNoWriter(path: FileName, name: string): void {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return; // the caller may write it but not read it
  }
  try {
    if (hasWriter(fd))
      throw new LivesnapError('NOT_POSSIBLE_NOW', `cannot write ${name}: ${IN_USE}`, {
        hint: 'Stop the other one, or write to another file.',
      });
  } finally {
    closeSync(fd);
  }
}

function requireOutside(
  resolved: ResolvedName,
  storeDir: string,
  refuse: (why: string, hint: string) => Error,
): void {
  // Only Linux says which file a descriptor is.
  if (resolved.kind !== 'path' && process.platform !== 'linux') return;
  let store: string;
  try {
    store = realPath(storeDir);
  } catch {
    return; // The store does not exist.
  }
  const place =
    resolved.kind === 'path'
      ? realPath(resolved.directory)
      : readlinkSync(resolved.kind === 'foreign' ? resolved.path : `/proc/self/fd/${resolved.fd}`, 'latin1');
  if (`${place}/`.startsWith(`${store}/`))
    throw refuse('it is in the store', 'Specify a path outside the store.');
}

/** A new file under a temporary name, which replaces the target once it is complete. */
export class FileReplacement implements PageSink {
  readonly regions: readonly Region[];
  readonly sizeBytes: number;
  readonly #temporary: Buffer;
  readonly #fd: number;
  #isOpen = true;

  /** Errors: NO_SPACE, NO_PERMISSION, READ_ONLY, NO_SUCH_FILE, SYSTEM. */
  constructor(
    readonly target: FileTarget,
    region: Region,
  ) {
    const { sizeBytes } = region;
    this.sizeBytes = sizeBytes;
    this.regions = [region];
    const temporary = `.livesnap-${randomBytes(8).toString('hex')}.tmp`;
    this.#temporary = Buffer.concat([target.directory, Buffer.from(`/${temporary}`)]);
    try {
      // The file that is replaced may be private, so the new one is until it gets that file's mode.
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

  /** Writes each run of adjacent pages with one call. Pages that are never written stay holes. */
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

  /** Errors: those of the constructor. */
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
 * Gives the new file the owner, group, attributes and mode of the old one. The set-user-ID and set-group-ID bits are
 * cleared, as by any write. If the group cannot be kept, the caller's group does not get the permissions of the old
 * group.
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
      // The caller lacks permission.
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
    // The caller lacks permission to read it.
  }
  fchmodSync(fd, fstatSync(fd).gid === gid ? mode & 0o777 : mode & 0o707);
}

/** The target for process.stdout; null for any other stream. In a Worker, process.stdout is not descriptor 1. */
export const standardOutput = (output: Writable): StreamTarget | null =>
  output === process.stdout && process.stdout.fd === 1
    ? { kind: 'stream', name: 'the standard output', stats: fstatSync(1), path: '/dev/stdout', fd: 1 }
    : null;

/**
 * Opens a target that is written front to back. `end`: whether the caller ends the stream, which closes what was opened
 * here.
 */
export async function openStream(
  { name, stats, path, fd }: StreamTarget,
  signal?: AbortSignal,
): Promise<{ output: Writable; end: boolean }> {
  try {
    // Writes at the descriptor's position, or at the end if it was opened to append.
    if (fd !== null && (stats?.isFile() || stats?.isBlockDevice()))
      return { output: descriptorStream(fd), end: true };
    if (fd === 1) return { output: process.stdout, end: false };
    if (fd === 2) return { output: process.stderr, end: false };
    if (fd !== null && stats?.isSocket())
      return { output: new Socket({ fd, readable: false, writable: true }), end: true };
    if (stats?.isFIFO())
      return {
        output: new Socket({ fd: await openFifo(path, signal), readable: false, writable: true }),
        end: true,
      };
    const flags = (constants.O_WRONLY | constants.O_NOCTTY) as unknown as string;
    return { output: createWriteStream(path, { flags }), end: true };
  } catch (error) {
    throw targetError(name, error);
  }
}

/** A descriptor as a stream that leaves it open. A stream of node:fs closes it on errors. */
const descriptorStream = (fd: number): Writable =>
  new Writable({
    write(chunk: Buffer, _encoding, done) {
      writeFully(fd, chunk, 0, chunk.length, null).then(() => done(), done);
    },
  });

/** `position` null: writes at the descriptor's position. */
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

/** Waits for a reader by polling. A blocking open would occupy a thread, and the process could not end. */
async function openFifo(path: FileName, signal?: AbortSignal): Promise<number> {
  for (;;) {
    signal?.throwIfAborted();
    try {
      return openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error;
    }
    await delay(READER_POLL_MS);
  }
}

/** Turns the error of a system call or a stream into one that names the target. */
export function targetError(name: string, error: unknown): LivesnapError {
  if (error instanceof LivesnapError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const failed = `cannot write ${name}`;
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new LivesnapError('NO_SUCH_FILE', `${failed}: no such directory`, {
        hint: 'Check the path.',
        cause: error,
      });
    case 'ENOSPC':
      return new LivesnapError('NO_SPACE', `${failed}: its disk is full`, {
        hint: 'Free some space there, or write to another disk.',
        cause: error,
      });
    case 'EDQUOT':
      return new LivesnapError('NO_SPACE', `${failed}: the disk quota is used up`, {
        hint: 'Free some space there, or write to another disk.',
        cause: error,
      });
    case 'EFBIG':
      return new LivesnapError('SYSTEM', `${failed}: the file is too large`, {
        hint: 'Write to a file system that can hold it; ulimit -f shows the limit of the process.',
        cause: error,
      });
    case 'EROFS':
      return new LivesnapError('READ_ONLY', `${failed}: its file system is read-only`, {
        hint: 'Specify a file on a writable file system.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
      return new LivesnapError('NO_PERMISSION', `${failed}: permission denied`, {
        hint: 'Specify a file that you can write.',
        cause: error,
      });
    default:
      return new LivesnapError('SYSTEM', `${failed}: ${message}`, { cause: error });
  }
}

/** An existing file may be writable although it cannot be replaced: in a read-only directory, or as a mount point. */
function replacementError({ name, stats }: Target, error: unknown): LivesnapError {
  const { code } = error as NodeJS.ErrnoException;
  const isForbidden = code === 'EACCES' || code === 'EPERM';
  if (stats && (isForbidden || code === 'EROFS' || code === 'EBUSY'))
    return new LivesnapError(
      isForbidden ? 'NO_PERMISSION' : 'READ_ONLY',
      `cannot write ${name}: it cannot be replaced where it is`,
      {
        hint: `Overwrite its contents, which is not undone on failure: livesnap get SNAPSHOT - >${name}`,
        cause: error,
      },
    );
  return targetError(name, error);
}
