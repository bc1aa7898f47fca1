/**
 * Files without a name, for overlays and for blocks that a save sets aside. They end with the process, whatever ends it.
 *
 * Thread: any.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants, existsSync, openSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { LivesnapError } from '../../errors.js';

/** O_TMPFILE (open(2)), which Node does not name. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY;

/** Opens an unnamed file in a directory, for reading and writing. Errors: those of open(2). */
export function openScratchFile(dir: string): number {
  try {
    return openSync(dir, O_TMPFILE | constants.O_RDWR, 0o600);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // The file system has no unnamed files. Node names EOPNOTSUPP by the equal ENOTSUP.
    if (code !== 'ENOTSUP' && code !== 'EISDIR' && code !== 'EINVAL') throw error;
  }
  const path = join(dir, `.livesnap-${randomBytes(8).toString('hex')}`);
  const fd = openSync(path, 'wx+', 0o600);
  try {
    unlinkSync(path);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** The directory itself, or the nearest one above it that exists. */
export function nearestDirectory(dir: string): string {
  let nearest = dir;
  while (!existsSync(nearest) && dirname(nearest) !== nearest) nearest = dirname(nearest);
  return nearest;
}

/** Opens the file of an overlay. Errors: those of {@link openScratch}. */
export const openOverlayFile = (dir: string): number =>
  openScratch(dir, 'what the machine writes to its disks');

/**
 * Opens a file in the directory of overlays. Errors: NO_SUCH_FILE, READ_ONLY, NO_PERMISSION, NO_SPACE, SYSTEM, naming
 * --overlay-dir.
 */
export function openScratch(dir: string, contents: string): number {
  try {
    return openScratchFile(dir);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const hint = 'Choose another directory with --overlay-dir DIR.';
    const sentence = `${dir} cannot hold ${contents}`;
    if (!existsSync(dir)) throw new LivesnapError('NO_SUCH_FILE', `${sentence}: it does not exist`, { hint });
    if (code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `${sentence}: it is not a directory`, { hint });
    if (code === 'ENOENT')
      throw new LivesnapError('READ_ONLY', `${sentence}: no file can be created there`, { hint });
    if (code === 'EROFS')
      throw new LivesnapError('READ_ONLY', `${sentence}: its file system is read-only`, { hint });
    if (code === 'EACCES' || code === 'EPERM')
      throw new LivesnapError('NO_PERMISSION', `${sentence}: this user may not write to it`, { hint });
    const isFull = code === 'ENOSPC' || code === 'EDQUOT';
    throw new LivesnapError(isFull ? 'NO_SPACE' : 'SYSTEM', `${sentence}: ${message}`, {
      hint,
      cause: error,
    });
  }
}

/** Space that an overlay leaves free for saves: as much as the machine's RAM, but at most a sixteenth of the file system. */
export function reserveBytesFor(dir: string, memoryBytes: number): number {
  const { blocks, bsize } = statfsSync(dir);
  return Math.min(memoryBytes, Math.floor((blocks * bsize) / 16));
}
