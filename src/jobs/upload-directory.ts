/**
 * Temporary directories of archives: held by a lock while somebody uses them, and deleted by the next server if nobody
 * does.
 */
import {
  closeSync,
  constants,
  existsSync,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { largeTemporaryDirectory, temporaryDirectory, userId } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { tryLock } from '../native/locks.js';

const PREFIX = 'livesnap-upload-';
const NAME = /^livesnap-upload-[A-Za-z0-9]{6}$/;

/** Where they are. A small container may have no /var/tmp. */
export function uploadParent(): string {
  const parent = largeTemporaryDirectory();
  return existsSync(parent) ? parent : temporaryDirectory();
}

/** Errors: those of the system. */
export const makeUploadDirectory = (): string => mkdtempSync(join(uploadParent(), PREFIX));

/** Keeps the directory from {@link sweepUploads} while the descriptor is open. Errors: SYSTEM. */
export function holdDirectory(path: string): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  // Several hold it: the server until the job has it.
  if (tryLock(fd, 'shared')) return fd;
  closeSync(fd);
  throw new LivesnapError('SYSTEM', `the directory ${path} is being deleted`);
}

/** Deletes what servers and jobs that were killed have left. */
export function sweepUploads(): void {
  const parent = uploadParent();
  for (const name of readdirSync(parent)) {
    const path = join(parent, name);
    if (!NAME.test(name) || lstatSync(path, { throwIfNoEntry: false })?.uid !== userId()) continue;
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    } catch {
      continue; // it is gone, or no directory
    }
    try {
      if (tryLock(fd, 'exclusive')) rmSync(path, { recursive: true, force: true });
    } finally {
      closeSync(fd);
    }
  }
}
