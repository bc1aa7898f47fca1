/**
 * Copies between the store of this machine and a remote: another directory, or what an address names (schemes.ts,
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
  /** The store of this machine. */
  readonly storeDir: string;
  /** The other one: a directory or an address. */
  readonly remote: string;
  /** Only for tests; see `Store.open`. */
  readonly fingerprintBits?: number;
}

/** Errors: USAGE, REMOTE_FAILED, and those of both stores. */
export async function copySnapshots(request: CopyRequest): Promise<CopyResult[]> {
  const { storeDir, direction, fingerprintBits = 64 } = request;
  const remote = remoteOf(request); // before a store is made here
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

function remoteOf({ storeDir, direction, remote, fingerprintBits = 64 }: CopyRequest): Remote {
  const scheme = schemeOf(remote);
  if (scheme !== null) return openRemote(scheme, remote, direction);
  const [here, there] = [resolve(storeDir), resolve(remote)];
  if (here === there)
    throw new LivesnapError('USAGE', `${here} is the store itself`, { hint: 'Name another directory.' });
  return openDirectory(there, fingerprintBits);
}
