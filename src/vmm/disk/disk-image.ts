/**
 * Opens the raw image file or block device of a disk, checks it and locks it.
 *
 * Thread: the main thread, before the machine exists.
 *
 * Invariants:
 * - Nothing is written, and the file is closed again when it is refused.
 * - The lock lasts as long as the descriptor. It is one that qemu and qemu-img honour.
 * - A block device that the host has mounted, or uses otherwise, is not written to (open(2), O_EXCL).
 * - What is checked is the open file, not its path.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { blockDeviceBytes } from '../../native/files.js';
import { lockImage } from '../../native/locks.js';
import { SECTOR_BYTES } from './disk-setup.js';

/** `cow`: the image stays as it is; the machine's writes go elsewhere. */
export type ImageMode = 'rw' | 'ro' | 'cow';

export interface DiskImage {
  readonly fd: number;
  readonly sizeBytes: number;
}

/** What begins with these bytes is not a raw image. */
const FORMATS: readonly { readonly name: string; readonly magic: Buffer; readonly offset: number }[] = [
  { name: 'qcow2', magic: Buffer.from('QFI\xfb', 'latin1'), offset: 0 },
  { name: 'vmdk', magic: Buffer.from('KDMV', 'latin1'), offset: 0 },
  { name: 'vmdk', magic: Buffer.from('COWD', 'latin1'), offset: 0 },
  { name: 'vmdk', magic: Buffer.from('# Disk DescriptorFile', 'latin1'), offset: 0 },
  { name: 'vdi', magic: Buffer.from([0x7f, 0x10, 0xda, 0xbe]), offset: 64 },
  { name: 'vhdx', magic: Buffer.from('vhdxfile', 'latin1'), offset: 0 },
  { name: 'vhd', magic: Buffer.from('conectix', 'latin1'), offset: 0 },
  { name: 'qed', magic: Buffer.from('QED\0', 'latin1'), offset: 0 },
];

/**
 * `given`: the open file, which is used in place of the path. Errors: NO_SUCH_FILE, NO_PERMISSION, BAD_IMAGE, READ_ONLY,
 * NOT_POSSIBLE_NOW (in use), SYSTEM.
 */
export function openDiskImage(path: string, mode: ImageMode, given?: number): DiskImage {
  let fd = given ?? openImageFile(path, mode);
  try {
    const { sizeBytes, isDevice } = checkKind(fd, path);
    if (isDevice && mode === 'rw') {
      const shared = fd;
      fd = claimDevice(shared, path);
      closeSync(shared);
    }
    lock(fd, path, mode);
    checkFormat(fd, path);
    if (sizeBytes === 0)
      throw new LivesnapError('BAD_IMAGE', `disk image ${path} is empty`, {
        hint: 'Give it a size, for example: truncate -s 1G FILE',
      });
    if (sizeBytes % SECTOR_BYTES !== 0)
      throw new LivesnapError(
        'BAD_IMAGE',
        `disk image ${path} has ${sizeBytes} bytes, not a multiple of ${SECTOR_BYTES}`,
        { hint: 'It may be truncated, or not a raw image. To extend it with zeros: truncate -s %512 FILE' },
      );
    return { fd, sizeBytes };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openImageFile(path: string, mode: ImageMode): number {
  const { O_RDWR, O_RDONLY, O_NONBLOCK, O_NOCTTY } = constants;
  try {
    // Without O_NONBLOCK a pipe would be waited for.
    return openSync(path, (mode === 'rw' ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_NOCTTY);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    switch (code) {
      case 'ENOENT':
      case 'ENOTDIR':
        throw new LivesnapError('NO_SUCH_FILE', `disk image ${path} does not exist`, {
          hint: 'Check the path.',
        });
      case 'EISDIR':
        throw isDirectory(path);
      case 'EROFS':
        throw new LivesnapError('READ_ONLY', `disk image ${path} is on a read-only file system`, {
          hint: 'Add ,ro or ,cow to --block.',
        });
      case 'EACCES':
      case 'EPERM':
        throw new LivesnapError(
          'NO_PERMISSION',
          `disk image ${path} may not be ${mode === 'rw' ? 'written' : 'read'}`,
          {
            hint: `Check the permissions of the file and of the directories above it${mode === 'rw' ? ', or add ,ro or ,cow to --block' : ''}.`,
          },
        );
      case 'ETXTBSY':
      case 'EBUSY':
        throw inUse(path, mode);
      default:
        throw new LivesnapError('SYSTEM', `disk image ${path} cannot be opened: ${message}`, {
          cause: error,
        });
    }
  }
}

/** The open block device once more, for this process alone: the host does not mount it as long as it is open. */
function claimDevice(fd: number, path: string): number {
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_RDWR | constants.O_EXCL | constants.O_NONBLOCK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EBUSY')
      throw new LivesnapError('SYSTEM', `block device ${path} cannot be opened alone: ${message}`, {
        cause: error,
      });
    throw new LivesnapError('NOT_POSSIBLE_NOW', `block device ${path} is mounted, or in use by this host`, {
      hint: 'Unmount it (lsblk shows what uses it), or add ,ro or ,cow to --block.',
    });
  }
}

const isDirectory = (path: string): LivesnapError =>
  new LivesnapError('BAD_IMAGE', `disk image ${path} is a directory`, {
    hint: 'Specify a raw image file or a block device.',
  });

const inUse = (path: string, mode: ImageMode): LivesnapError =>
  new LivesnapError('NOT_POSSIBLE_NOW', `disk image ${path} is in use by another machine or program`, {
    hint:
      mode === 'rw'
        ? 'Stop the other one. Machines can share an image only if each has the mode ro or cow.'
        : 'Stop the other one, which may write to the image.',
  });

/** Of a regular file or block device. Errors: BAD_IMAGE. */
function checkKind(fd: number, path: string): { sizeBytes: number; isDevice: boolean } {
  const stats = fstatSync(fd);
  if (stats.isFile()) return { sizeBytes: stats.size, isDevice: false };
  if (stats.isBlockDevice()) return { sizeBytes: blockDeviceBytes(fd), isDevice: true };
  if (stats.isDirectory()) throw isDirectory(path);
  throw new LivesnapError('BAD_IMAGE', `disk image ${path} is neither a regular file nor a block device`, {
    hint: 'Specify a raw image file or a block device.',
  });
}

function lock(fd: number, path: string, mode: ImageMode): void {
  let isLocked: boolean;
  try {
    isLocked = lockImage(fd, mode === 'rw' ? 'exclusive' : 'shared');
  } catch (error) {
    throw new LivesnapError('SYSTEM', `disk image ${path} cannot be locked: ${(error as Error).message}`, {
      hint: 'Copy it to a file system that supports locks.',
      cause: error,
    });
  }
  if (!isLocked) throw inUse(path, mode);
}

function checkFormat(fd: number, path: string): void {
  const start = Buffer.alloc(SECTOR_BYTES);
  let length: number;
  try {
    length = readSync(fd, start, 0, start.length, 0);
  } catch (error) {
    throw new LivesnapError('SYSTEM', `disk image ${path} cannot be read: ${(error as Error).message}`, {
      hint: 'Check the disk that it is on.',
      cause: error,
    });
  }
  const format = imageFormat(start.subarray(0, length));
  if (format !== null)
    throw new LivesnapError('BAD_IMAGE', `disk image ${path} is in the format ${format}, not raw`, {
      hint: `To convert it: qemu-img convert -O raw ${path} ${path}.raw`,
    });
}

/** The format of an image that is not raw, from its first {@link SECTOR_BYTES} bytes; null: it may be raw. */
export function imageFormat(start: Buffer): string | null {
  const found = FORMATS.find(({ magic, offset }) =>
    start.subarray(offset, offset + magic.length).equals(magic),
  );
  return found?.name ?? null;
}
