/**
 * What the name of a file stands for: a place in a directory, or a file that a process has open (/dev/stdout,
 * /dev/fd/N, /proc/PID/fd/N, and links to them). The path that the kernel shows for an open file is no name of it: the
 * file may have been removed or replaced, and what is written there belongs at the descriptor's position.
 *
 * Names are bytes: a string stands for its UTF-8. Links are followed one at a time, and directories are left to the
 * kernel, since a link of procfs leads elsewhere than its text says.
 */
import { lstatSync, readlinkSync, realpathSync, statfsSync } from 'node:fs';
import { basename, isAbsolute, posix } from 'node:path';
import { LivesnapError } from '../../errors.js';

/** A path; a Buffer where it may not be UTF-8. */
export type FileName = string | Buffer;

/** The name as it is shown; bytes that are not UTF-8 become U+FFFD. */
export const shownName = (name: FileName): string => name.toString();

export type Meaning =
  /** `path` is a link no more: something is there, or nothing yet. */
  | { readonly kind: 'path'; readonly path: Buffer; readonly directory: Buffer }
  /** A descriptor of this process. */
  | { readonly kind: 'descriptor'; readonly fd: number }
  /** Another process has it open. */
  | { readonly kind: 'foreign'; readonly path: Buffer };

/** As in the kernel (path_resolution(7)). */
const MAX_LINKS = 40;
/** Of statfs(2): PROC_SUPER_MAGIC. */
const PROCFS = 0x9fa0;
const DESCRIPTOR = /^\/dev\/fd\/(\d+)$/;

/** Errors: those of the system calls, such as ENOENT where a directory is missing. */
export function meaningOf(name: FileName): Meaning {
  // One character a byte, so that paths can be taken apart and put together as text.
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
  throw new LivesnapError('USAGE', `${shownName(name)} has too many links`);
}

/** Whether a directory is one of procfs, in which no file can be made. */
export const isInProcfs = (directory: Buffer): boolean => statfsSync(directory).type === PROCFS;

/** Which open file a link in a directory of procfs stands for, if any: /proc/self and its like are plain links. */
function openFile(directory: string, name: string): { fd: number | null } | null {
  const real = realpathSync.native(Buffer.from(directory, 'latin1'), 'buffer').toString('latin1');
  if (!/\/\d+(\/|$)/.test(real)) return null;
  const own = `/proc/${readlinkSync('/proc/self')}`;
  const isOwn = real.startsWith(own) && /^(\/task\/\d+)?\/fd$/.test(real.slice(own.length));
  return { fd: isOwn ? Number(name) : null };
}

/** The last part of a name, as it is shown; null for the name of an open file. */
export const baseName = (name: FileName): string | null =>
  meaningOf(name).kind === 'path' ? basename(shownName(name)) : null;
