/**
 * Copies many snapshots of a store, parents first. A snapshot that cannot be copied does not keep the others from being
 * copied.
 *
 * An error ends a session, so the rest is copied in another one.
 */
import { asLivesnapError, type ErrorCode, type LivesnapError } from '../../errors.js';
import type { CopyResult } from '../copy/copy-result.js';
import { parentsFirst } from '../copy/parents-first.js';
import { Store } from '../store.js';
import type { SnapshotSummary } from '../types.js';
import { type CopyRequest, copySnapshots } from './copy.js';

export interface CopyAllRequest extends Omit<CopyRequest, 'refs' | 'onDone'> {
  /** Which of the source's snapshots to copy. */
  readonly choose: (all: readonly SnapshotSummary[]) => readonly SnapshotSummary[];
}

export interface CopyAllResult {
  /** Of the snapshots that were copied or were there, in the order in which they were copied. */
  readonly results: readonly CopyResult[];
  /** IDs of the snapshots that were there already. */
  readonly alreadyThere: readonly string[];
  readonly failed: readonly { readonly id: string; readonly error: LivesnapError }[];
  /** IDs of the snapshots that were not tried, because of the last error. */
  readonly notTried: readonly string[];
}

/** With these errors of the destination, no other snapshot can be copied either. */
const HOPELESS = new Set<ErrorCode>(['NO_SPACE', 'READ_ONLY', 'NO_PERMISSION']);

/** Errors: those before the first snapshot, as when a store cannot be opened or listed. */
export async function copyAll({ choose, ...request }: CopyAllRequest): Promise<CopyAllResult> {
  const results: CopyResult[] = [];
  const alreadyThere: string[] = [];
  const failed: { id: string; error: LivesnapError }[] = [];
  let waiting: string[] | null = null;
  const task = {
    ...request,
    onPlan: (plan: Parameters<CopyRequest['onPlan']>[0]): void => {
      if (plan.alreadyThere) alreadyThere.push(plan.id);
      request.onPlan(plan);
    },
    onDone: (result: CopyResult): void => {
      results.push(result);
      waiting!.shift();
    },
  };
  const chosen = (all: readonly SnapshotSummary[]): string[] => {
    waiting = parentsFirst(choose(all)).map(({ id }) => id);
    if (request.direction === 'from') waiting = skipPresent(waiting);
    return [...waiting];
  };
  /** The destination is this machine's store: what it has need not be asked for. */
  const skipPresent = (ids: readonly string[]): string[] => {
    const here = idsIn(request.storeDir);
    return ids.filter((id) => {
      if (!here.has(id)) return true;
      task.onPlan({ id, alreadyThere: true, sendChunks: 0, presentChunks: 0 });
      results.push({ id, sentBytes: 0, sentChunks: 0, presentChunks: 0, skippedTags: [] });
      return false;
    });
  };
  let lostConnections = 0;
  for (let refs: CopyRequest['refs'] = chosen; ; refs = () => [...waiting!]) {
    const before = results.length;
    try {
      await copySnapshots({ ...task, refs });
      break;
    } catch (error) {
      request.signal?.throwIfAborted();
      const id: string | undefined = (waiting as string[] | null)?.shift();
      if (id === undefined) throw error;
      const known = asLivesnapError(error);
      failed.push({ id, error: known });
      if (HOPELESS.has(known.code)) break;
      // One snapshot may make the remote fail. If the next one fails at once as well, it is the connection.
      if (results.length > before) lostConnections = 0;
      if (known.code === 'REMOTE_FAILED' && ++lostConnections === 2) break;
      if (waiting!.length === 0) break;
    }
  }
  return { results, alreadyThere, failed, notTried: waiting ?? [] };
}

function idsIn(dir: string): Set<string> {
  const store = Store.open(dir, { write: false });
  try {
    return new Set(store.list().map(({ id }) => id));
  } finally {
    store.close();
  }
}
