/** The file of the token that requests over TCP need. It belongs to the user alone. */
import {
  closeSync,
  constants,
  fstatSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { stateFile, userId } from './environment.js';
import { LivesnapError } from './errors.js';
import { newSecret } from './secret.js';

/** Where the token is unless a server is told otherwise. Errors: USAGE. */
export const tokenFile = (): string => stateFile('token');

const TOKEN = /^[\w-]{32,128}$/;
const MAX_FILE_BYTES = 256;

/**
 * Reads the token, or makes a file with a new one. Errors: NO_PERMISSION (others may read the file), BAD_STATE (it has no
 * token), and those of the system.
 */
export function tokenIn(path: string): string {
  return readToken(path) ?? createToken(path);
}

function createToken(path: string): string {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, `${newSecret()}\n`, { mode: 0o600, flag: 'wx' });
  try {
    linkSync(draft, path); // fails if another server has made one meanwhile, whose token then counts
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
  const token = readToken(path);
  if (token === null)
    throw new LivesnapError('SYSTEM', `the token file ${path} was removed while it was made`);
  return token;
}

/** Null: there is no such file. */
function readToken(path: string): string | null {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new LivesnapError(
      'NO_PERMISSION',
      `the token file ${path} cannot be read: ${(error as Error).message}`,
      {
        hint: 'Remove it: livesnap makes a new one.',
        cause: error,
      },
    );
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile() || stats.uid !== userId() || (stats.mode & 0o077) !== 0)
      throw new LivesnapError('NO_PERMISSION', `the token file ${path} is not a file of this user alone`, {
        hint: `Remove it, and livesnap makes a new one; or: chmod 600 ${path}.`,
      });
    const bytes = Buffer.alloc(MAX_FILE_BYTES);
    const token = bytes.toString('utf8', 0, readSync(fd, bytes)).trim();
    if (TOKEN.test(token)) return token;
    throw new LivesnapError('BAD_STATE', `the token file ${path} has no valid token`, {
      hint: 'Remove it: livesnap makes a new one.',
    });
  } finally {
    closeSync(fd);
  }
}
