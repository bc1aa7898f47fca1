/**
 * Unix socket addresses hold 107 bytes of path (unix(7)); a longer path is reached through its directory's
 * descriptor in /proc/self/fd, which works for bind and connect alike.
 */
import { closeSync, openSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const MAX_PATH_BYTES = 107;

/** A path that fits for the socket at `path`, good until `close` is called. Errors: the system's, for its directory. */
export function socketAddress(path: string): { address: string; close: () => void } {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return { address: path, close: () => {} };
  const fd = openSync(dirname(path), 'r');
  return { address: join(`/proc/self/fd/${fd}`, basename(path)), close: () => closeSync(fd) };
}
