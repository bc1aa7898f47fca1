/**
 * Copies a directory or a file of the host to a small read-only disk: an ISO 9660 image in a file without a name.
 *
 * Thread: the main thread, before the machine exists.
 *
 * Invariants:
 * - Symbolic links are copied, never followed, but for the path itself. So nothing outside of it is shared.
 * - A file that changes while it is copied is an error, so that no guest sees half of it.
 * - If anything fails, nothing stays open.
 */
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { basename } from 'node:path';
import { LivesnapError } from '../../errors.js';
import type { Progress } from '../../page-stream.js';
import { type IsoDirectory, type IsoEntry, type IsoFile, isoImage } from './iso9660.js';
import { openScratch } from './scratch-file.js';

/** cloud-init's data source NoCloud finds a disk by this label (docs of cloud-init, "NoCloud"). */
const CLOUD_INIT_LABEL = 'cidata';
const CLOUD_INIT_FILES = ['meta-data', 'user-data'];
const LABEL = 'share';

/** The files are copied at each start, and saves store them: large ones belong on a disk. */
const MAX_BYTES = 1 << 30;
/** In the format a directory has a number of 16 bits. */
const MAX_ENTRIES = 0xffff;
const COPY_BYTES = 1 << 20;

interface HostFile extends IsoFile {
  readonly path: Buffer;
}

/**
 * @param scratchDir where the image is, until the descriptor is closed
 * @param progress counts the bytes of files
 * @throws LivesnapError NO_SUCH_FILE, NO_PERMISSION, SYSTEM; USAGE (cannot be shared); NOT_POSSIBLE_NOW (a file changes);
 * those of openScratch
 */
export function openShare(
  path: string,
  scratchDir: string,
  progress: Progress = () => {},
): { fd: number; sizeBytes: number } {
  const root = readTree(path);
  const names = new Set(root.entries.map(({ name }) => name.toString('latin1')));
  const isForCloudInit = CLOUD_INIT_FILES.every((name) => names.has(name));
  const image = isoImage<HostFile>(root, isForCloudInit ? CLOUD_INIT_LABEL : LABEL);
  const fd = openScratch(scratchDir, 'the files of a share');
  try {
    ftruncateSync(fd, image.sizeBytes);
    writeWhole(fd, image.head, 0);
    const totalBytes = image.files.reduce((sum, { file }) => sum + file.sizeBytes, 0);
    let doneBytes = 0;
    for (const { file, offset } of image.files)
      copyFile(file, fd, offset, (bytes) => {
        doneBytes += bytes;
        progress(doneBytes, totalBytes);
      });
    return { fd, sizeBytes: image.sizeBytes };
  } catch (error) {
    closeSync(fd);
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    throw new LivesnapError('NO_SPACE', `${scratchDir} has no space for the files of ${path}`, {
      hint: 'Choose another directory with --overlay-dir DIR.',
    });
  }
}

/** Which files there are, and how large. */
function readTree(top: string): IsoDirectory {
  let left = MAX_ENTRIES;
  let leftBytes = MAX_BYTES;
  const tooLarge = (what: string): LivesnapError =>
    new LivesnapError('USAGE', `${top} has more than ${what}, too much for a share`, {
      hint: 'Make a disk image of it, and give that with --block.',
    });

  const entryAt = (path: Buffer, name: Buffer): IsoEntry => {
    if (left-- === 0) throw tooLarge(`${MAX_ENTRIES} files`);
    const stats = attempt(path, () => lstatSync(path));
    const modifiedMs = Math.floor(stats.mtimeMs);
    if (stats.isFile()) {
      leftBytes -= stats.size;
      if (leftBytes < 0) throw tooLarge('1 GiB');
      const isExecutable = (stats.mode & 0o111) !== 0;
      const file: HostFile = { kind: 'file', name, modifiedMs, sizeBytes: stats.size, isExecutable, path };
      return file;
    }
    if (stats.isSymbolicLink())
      return { kind: 'link', name, modifiedMs, target: attempt(path, () => readlinkSync(path, 'buffer')) };
    if (!stats.isDirectory())
      throw new LivesnapError('USAGE', `${path} is neither a file, a directory nor a symbolic link`, {
        hint: 'Only these can be shared.',
      });
    const names = attempt(path, () => readdirSync(path, 'buffer')).sort(Buffer.compare);
    const entries = names.map((each) => entryAt(Buffer.concat([path, Buffer.from('/'), each]), each));
    return { kind: 'directory', name, modifiedMs, entries };
  };

  const real = attempt(top, () => realpathSync(top));
  const found = entryAt(Buffer.from(real), Buffer.from(basename(top)));
  if (found.kind === 'directory') return found;
  return { kind: 'directory', name: Buffer.alloc(0), modifiedMs: found.modifiedMs, entries: [found] };
}

/** Copies as many bytes as the file had when its size was read. */
function copyFile(
  { path, sizeBytes }: HostFile,
  to: number,
  offset: number,
  onBytes: (bytes: number) => void,
): void {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const from = attempt(path, () => openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  try {
    const buffer = Buffer.alloc(Math.min(COPY_BYTES, sizeBytes));
    let done = 0;
    while (done < sizeBytes) {
      const bytes = attempt(path, () =>
        readSync(from, buffer, 0, Math.min(buffer.length, sizeBytes - done), done),
      );
      if (bytes === 0) break;
      writeWhole(to, buffer.subarray(0, bytes), offset + done);
      done += bytes;
      onBytes(bytes);
    }
    if (done < sizeBytes || fstatSync(from).size !== sizeBytes)
      throw new LivesnapError('NOT_POSSIBLE_NOW', `${path} changed while it was copied`, {
        hint: 'Try again when no program writes to it.',
      });
  } finally {
    closeSync(from);
  }
}

function writeWhole(fd: number, bytes: Buffer, offset: number): void {
  for (let done = 0; done < bytes.length; )
    done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
}

/** Runs a system call on a file of the host. */
function attempt<T>(path: string | Buffer, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `${path} does not exist`, { hint: 'Check the path.' });
    const isForbidden = code === 'EACCES' || code === 'EPERM';
    throw new LivesnapError(
      isForbidden ? 'NO_PERMISSION' : 'SYSTEM',
      `${path} cannot be shared: ${message}`,
      {
        hint: 'Check the permissions of the file and of the directories above it.',
        cause: error,
      },
    );
  }
}
