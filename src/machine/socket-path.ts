/**
 * Addresses of Unix sockets. An address holds 107 bytes of path (unix(7)); a longer path is reached through its
 * directory's descriptor in /proc/self/fd, which works for bind and connect.
 */
import { closeSync, openSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const MAX_PATH_BYTES = 107;

interface SocketAddress {
  readonly address: string;
  /** Ends the use of the address. */
  readonly close: () => void;
}

/** An address to connect to the socket at `path`, valid until `close`. Errors: the system's, for its directory. */
export function socketAddress(path: string): SocketAddress {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return { address: path, close: () => {} };
  return addressInDirectory(path);
}

/**
 * An address to listen on at `path`. A server unlinks its address when it closes. Through the directory's descriptor
 * that is the socket it made, even if another server has made one at the same path since. Close the server first.
 */
export const listeningAddress = (path: string): SocketAddress => addressInDirectory(path);

function addressInDirectory(path: string): SocketAddress {
  const fd = openSync(dirname(path), 'r');
  return { address: join(`/proc/self/fd/${fd}`, basename(path)), close: () => closeSync(fd) };
}
