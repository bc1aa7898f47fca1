/**
 * Copies between a store of this machine and a remote: another directory, or a store behind an address (schemes.ts,
 * docs/copy.md).
 */
import { resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import type { CopyResult } from '../copy/copy-result.js';
import { Store } from '../store.js';
import { schemeOf } from './address.js';
import { openDirectory } from './directory.js';
import type { CopyTask, Remote } from './remote.js';
import { openRemote } from './schemes.js';

export interface CopyRequest extends CopyTask {
  /** The local store. */
  readonly storeDir: string;
  /** The other store: a directory or an address. */
  readonly remote: string;
  /** The remote is a directory that no other process uses: see `isPrivate` of `Store.open`. */
  readonly remoteIsPrivate?: boolean;
  /** Only for tests; see `Store.open`. */
  readonly fingerprintBits?: number;
}

/** Errors: USAGE, REMOTE_FAILED, and those of both stores. */
export async function copySnapshots(request: CopyRequest): Promise<CopyResult[]> {
  const { storeDir, direction, fingerprintBits = 64 } = request;
  const remote = remoteOf(request); // first, so that a wrong address creates no local store
  const write = direction === 'from';
  const store = Store.open(storeDir, { write, create: write, fingerprintBits });
  try {
    const results = await remote.copy(store, request);
    if (write) await store.tidy();
    return results;
  } finally {
    store.close();
  }
}

function remoteOf({
  storeDir,
  direction,
  remote,
  remoteIsPrivate = false,
  fingerprintBits = 64,
}: CopyRequest): Remote {
  const scheme = schemeOf(remote);
  if (scheme !== null) return openRemote(scheme, remote, direction);
  const [here, there] = [resolve(storeDir), resolve(remote)];
  if (here === there)
    throw new LivesnapError('USAGE', `source and destination are the same store: ${here}`, {
      hint: 'Name another directory.',
    });
  return openDirectory(there, remoteIsPrivate, fingerprintBits);
}
