/**
 * Resolves the name of a file: to a path, or to a file that a process has open (/dev/stdout, /dev/fd/N,
 * /proc/PID/fd/N, and links to them).
 *
 * Rules:
 * - An open file is not resolved to the path that procfs shows for it. That file may have been removed or replaced, and
 *   data belongs at the descriptor's position.
 * - Names are bytes. A string stands for its UTF-8.
 * - Links are followed one at a time, because the text of a link in procfs is not where it leads. The kernel resolves
 *   the directories.
 */
import { lstatSync, readlinkSync, realpathSync, statfsSync } from 'node:fs';
import { basename, isAbsolute, posix } from 'node:path';
import { LivesnapError } from '../../errors.js';

/** A path; a Buffer where it may not be UTF-8. */
export type FileName = string | Buffer;

export const isFileName = (value: unknown): value is FileName =>
  typeof value === 'string' || Buffer.isBuffer(value);

/** The name for people to read. Bytes that are not UTF-8 become U+FFFD. */
export const shownName = (name: FileName): string => name.toString();

export type ResolvedName =
  /** `path` is not a link. The file may not exist yet. */
  | { readonly kind: 'path'; readonly path: Buffer; readonly directory: Buffer }
  /** An open descriptor of this process. */
  | { readonly kind: 'descriptor'; readonly fd: number }
  /** A file that another process has open. */
  | { readonly kind: 'foreign'; readonly path: Buffer };

/** The kernel's limit: path_resolution(7). */
const MAX_LINKS = 40;
/** PROC_SUPER_MAGIC of statfs(2). */
const PROCFS = 0x9fa0;
const DESCRIPTOR = /^\/dev\/fd\/(\d+)$/;

/** Errors: USAGE (too many links), and those of the system calls, such as ENOENT if a directory is missing. */
export function resolveName(name: FileName): ResolvedName {
  // Latin-1 has one character for each byte, so paths can be cut and joined as text.
  let path = Buffer.from(name).toString('latin1');
  if (process.platform === 'win32') path = path.replaceAll('\\', '/');
  for (let links = 0; links < MAX_LINKS; links++) {
    const slash = path.replace(/\/+$/, '').lastIndexOf('/');
    const directory = slash < 0 ? '.' : path.slice(0, slash + 1);
    const bytes = Buffer.from(path, 'latin1');
    // Without procfs, as on macOS, these names are the descriptors themselves and no links.
    const descriptor = process.platform === 'linux' ? null : DESCRIPTOR.exec(posix.normalize(path));
    if (descriptor) return { kind: 'descriptor', fd: Number(descriptor[1]) };
    if (!lstatSync(bytes, { throwIfNoEntry: false })?.isSymbolicLink())
      return { kind: 'path', path: bytes, directory: Buffer.from(directory, 'latin1') };
    if (isInProcfs(Buffer.from(directory, 'latin1'))) {
      const open = openFile(directory, path.slice(slash + 1));
      if (open)
        return open.fd === null ? { kind: 'foreign', path: bytes } : { kind: 'descriptor', fd: open.fd };
    }
    const to = readlinkSync(bytes, 'latin1');
    path = isAbsolute(to) ? to : `${directory}/${to}`;
  }
  throw new LivesnapError('USAGE', `${shownName(name)} has too many symbolic links`, {
    hint: 'Specify the file itself.',
  });
}

/** Whether a directory is in procfs, where no file can be created. */
export const isInProcfs = (directory: Buffer): boolean => statfsSync(directory).type === PROCFS;

/** The open file that a link in procfs stands for; null for an ordinary link such as /proc/self. */
function openFile(directory: string, name: string): { fd: number | null } | null {
  const real = realPath(Buffer.from(directory, 'latin1'));
  if (!/\/\d+(\/|$)/.test(real)) return null;
  const own = `/proc/${readlinkSync('/proc/self')}`;
  const isOwn = real.startsWith(own) && /^(\/task\/\d+)?\/fd$/.test(real.slice(own.length));
  return { fd: isOwn ? Number(name) : null };
}

/** A path without links, one character for each byte. */
export const realPath = (path: FileName): string => realpathSync.native(path, 'buffer').toString('latin1');

/** The last part of a path, for people to read; null for the name of an open file. */
export const baseName = (name: FileName): string | null =>
  resolveName(name).kind === 'path' ? basename(shownName(name)) : null;
