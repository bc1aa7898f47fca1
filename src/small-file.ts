/** Reads a small text file that a user names, which may be anything. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { LivesnapError } from './errors.js';

/**
 * The text of a regular file of at most `maxBytes`. `refused` makes the error for another kind of file; its argument
 * completes a sentence: `it is not a regular file`. Errors: NO_SUCH_FILE, NO_PERMISSION, SYSTEM, that of `refused`.
 */
export function readSmallFile(path: string, maxBytes: number, refused: (problem: string) => Error): string {
  let fd: number;
  try {
    // A FIFO must not block.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new LivesnapError('NO_SUCH_FILE', `${path} does not exist`, { hint: 'Check the path.' });
    throw new LivesnapError(
      code === 'EACCES' ? 'NO_PERMISSION' : 'SYSTEM',
      `${path} cannot be read: ${message}`,
      { hint: 'Check the permissions of the file and of the directories above it.' },
    );
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw refused('it is not a regular file');
    if (stats.size > maxBytes) throw refused(`it is larger than ${maxBytes} bytes`);
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
