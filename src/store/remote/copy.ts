/**
 * Copies between the store of this machine and a remote: another directory, `ssh://host/dir`, or (from only)
 * `http(s)://host/path` (docs/copy.md).
 */
import { resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { localChannels } from '../copy/channel.js';
import type { CopyResult, OnPlan } from '../copy/copy-result.js';
import { askForCopies, type CopyEnd, serveCopies } from '../copy/sessions.js';
import { Store } from '../store.js';
import type { Progress } from '../types.js';
import { schemeOf } from './address.js';
import { HttpStore, parseHttpAddress } from './http-store.js';
import { parseSshAddress, withSshChannel } from './ssh.js';

export interface CopyRequest {
  /** The store of this machine. */
  readonly storeDir: string;
  readonly direction: 'to' | 'from';
  /** The other one: a directory or an address. */
  readonly remote: string;
  /** Snapshots by the names they have at the source. */
  readonly refs: readonly string[];
  /** Only for tests; see `Store.open`. */
  readonly fingerprintBits?: number;
  readonly onPlan: OnPlan;
  /** Gets each line that ssh, or the host at its other end, prints. */
  readonly onNotice?: (line: string) => void;
  readonly progress: Progress;
}

/** Errors: USAGE, REMOTE_FAILED, and those of both stores. */
export async function copySnapshots(request: CopyRequest): Promise<CopyResult[]> {
  const { storeDir, direction, remote, refs } = request;
  const scheme = schemeOf(remote);
  switch (scheme) {
    case 'ssh': {
      const address = parseSshAddress(remote);
      return withLocalEnd(request, (end) =>
        withSshChannel(address, request.onNotice ?? (() => {}), (channel) =>
          askForCopies(channel, end, direction, refs, { ...request, compress: true }),
        ),
      );
    }
    case 'http':
    case 'https':
      return copyFromHttp(request);
    case null:
      return copyBetweenDirectories(request, resolve(storeDir), resolve(remote));
    default:
      throw new LivesnapError('USAGE', `livesnap does not know ${scheme}:// addresses`, {
        hint: 'Give a directory, ssh://host/dir, or (to copy from) http://host/path or https://host/path.',
      });
  }
}

function openLocal({ storeDir, direction, fingerprintBits = 64 }: CopyRequest): Store {
  return direction === 'to'
    ? Store.open(storeDir, { write: false, fingerprintBits })
    : Store.open(storeDir, { write: true, create: true, fingerprintBits });
}

async function withLocalEnd<T>(request: CopyRequest, work: (store: Store) => Promise<T>): Promise<T> {
  const store = openLocal(request);
  try {
    const result = await work(store);
    if (request.direction === 'from') await store.tidy();
    return result;
  } finally {
    store.close();
  }
}

async function copyBetweenDirectories(
  request: CopyRequest,
  here: string,
  there: string,
): Promise<CopyResult[]> {
  const { direction, fingerprintBits = 64 } = request;
  if (here === there)
    throw new LivesnapError('USAGE', `${here} is the store itself`, { hint: 'Name another directory.' });
  return withLocalEnd(request, async (store) => {
    const write = direction === 'to';
    const other = Store.open(there, { write, create: write, fingerprintBits });
    try {
      const results = await copyWithin(store, other, request);
      if (write) await other.tidy();
      return results;
    } finally {
      other.close();
    }
  });
}

/** Both ends in this process. When it settles neither is at work any more: what has arrived has been kept. */
async function copyWithin(here: CopyEnd, there: CopyEnd, request: CopyRequest): Promise<CopyResult[]> {
  const [asking, serving] = localChannels();
  const options = { ...request, compress: false };
  const served = serveCopies(serving, () => there, options);
  served.catch(() => {}); // the asking side is told, and throws
  try {
    const results = await askForCopies(asking, here, request.direction, request.refs, options);
    await served;
    return results;
  } finally {
    asking.close();
    await Promise.allSettled([served]);
  }
}

async function copyFromHttp(request: CopyRequest): Promise<CopyResult[]> {
  const { direction, remote } = request;
  if (direction === 'to')
    throw new LivesnapError('USAGE', 'nothing can be copied to a web server', {
      hint: 'Copy to a directory or to ssh://host/dir; http addresses can be copied from.',
    });
  parseHttpAddress(remote); // before a store is made here
  return withLocalEnd(request, async (store) => {
    const source = new HttpStore(remote, store.dir);
    try {
      const results = await copyWithin(store, source, request);
      // What travelled are frames of packs, not pages.
      return results.map((result, i) => ({ ...result, sentBytes: source.sentBytes[i] ?? result.sentBytes }));
    } catch (error) {
      throw source.ownFailure ?? error;
    } finally {
      source.close();
    }
  });
}
