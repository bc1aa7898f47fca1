/**
 * Copies between a store of this machine and a remote: another directory, or a store behind an address (schemes.ts,
 * docs/copy.md).
 */
import { realpathSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { pageOpsLoaded } from '../../native/pages.js';
import type { CopyResult } from '../copy/copy-result.js';
import { requireLocksToWrite } from '../disk/locking.js';
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
  if (write) requireLocksToWrite(storeDir);
  remote.prepare?.(request);
  await pageOpsLoaded;
  const store = Store.open(storeDir, { write, create: write, fingerprintBits });
  try {
    // All of them first, so that a wrong name copies nothing, and creates no store at the remote.
    let { refs } = request;
    if (!write && typeof refs === 'function') refs = refs(store.list());
    else if (!write && typeof refs !== 'function') for (const ref of refs) store.resolve(ref);
    const results = await remote.copy(store, { ...request, refs });
    if (write) await store.tidy();
    return results;
  } finally {
    store.close();
  }
}

/** Errors: USAGE if `target` is inside the store's directory, where check and gc would find foreign files. */
export function requireOutside(storeDir: string, target: string): void {
  const inside = relative(realFolder(storeDir), realFolder(target));
  if (inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)) return;
  throw new LivesnapError('USAGE', `${target} is inside the store ${storeDir}`, {
    hint: 'Name a directory outside of the store.',
  });
}

/** The path without links, as far as it exists. */
function realFolder(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path === dirname(path) ? path : join(realFolder(dirname(path)), basename(path));
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
  requireOutside(here, there);
  return openDirectory(there, remoteIsPrivate, fingerprintBits);
}
