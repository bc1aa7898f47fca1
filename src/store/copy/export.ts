/**
 * A snapshot as a directory of its own: a store that holds nothing else (docs/copy.md). It can be rsynced, tarred, put
 * on a stick, restored from and imported.
 *
 * Invariant: under its name it is complete. It is made beside, as NAME.partial, which an export that was cut short
 * leaves and the next goes on with.
 */
import { existsSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { LivesnapError } from '../../errors.js';
import { fsyncDirectory, RESERVE, removeIfThere, storeError } from '../layout.js';
import { Store } from '../store.js';
import { type CopyRequest, copySnapshots } from './copy.js';
import type { CopyResult } from './copy-result.js';
import { requirePlainTree } from './plain-tree.js';

/** Errors: USAGE (there is something already), and those of a copy. */
export async function exportSnapshot(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { ref: string; to: string },
): Promise<CopyResult> {
  const target = resolve(request.to);
  const partial = `${target}.partial`;
  requireFree(target);
  const { fingerprintBits = 64 } = request;
  try {
    const id = withStore(request.storeDir, fingerprintBits, (store) => store.resolve(request.ref));
    if (!isOf(partial, id, fingerprintBits)) rmSync(partial, { recursive: true, force: true });
    const [result] = await copySnapshots({ ...request, direction: 'to', remote: partial, refs: [id] });
    removeIfThere(join(partial, RESERVE)); // nobody will write there
    requireFree(target);
    if (existsSync(target)) rmdirSync(target);
    renameSync(partial, target);
    fsyncDirectory(dirname(target));
    return result!;
  } catch (error) {
    throw storeError(target, error);
  }
}

function requireFree(target: string): void {
  let names: string[];
  try {
    names = readdirSync(target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'ENOTDIR') throw storeError(target, error);
    throw new LivesnapError('USAGE', `${target} is a file`, {
      hint: 'Name a directory that is not there yet.',
    });
  }
  if (names.length > 0)
    throw new LivesnapError('USAGE', `${target} is not empty`, {
      hint: 'Name a directory that is not there yet.',
    });
}

/** Whether what lies there is of an export of this snapshot: it holds no other. */
function isOf(partial: string, id: string, fingerprintBits: number): boolean {
  if (!existsSync(partial)) return false;
  try {
    requirePlainTree(partial);
    return withStore(partial, fingerprintBits, (store) => store.list().every((summary) => summary.id === id));
  } catch (error) {
    if (error instanceof LivesnapError) return false;
    throw error;
  }
}

function withStore<T>(dir: string, fingerprintBits: number, work: (store: Store) => T): T {
  const store = Store.open(dir, { write: false, fingerprintBits });
  try {
    return work(store);
  } finally {
    store.close();
  }
}

/** The ids in a directory that came from elsewhere, which is looked at before it is opened. Errors: NOT_A_STORE, … */
export function exportedSnapshots(dir: string, fingerprintBits = 64): string[] {
  requirePlainTree(dir);
  return withStore(dir, fingerprintBits, (store) => store.list().map(({ id }) => id));
}

/** Takes every snapshot of such a directory. Errors: NOT_A_STORE, and those of a copy. */
export async function importSnapshots(
  request: Omit<CopyRequest, 'direction' | 'remote' | 'refs'> & { from: string },
): Promise<CopyResult[]> {
  const from = resolve(request.from);
  const refs = exportedSnapshots(from, request.fingerprintBits);
  return copySnapshots({ ...request, direction: 'from', remote: from, refs });
}
