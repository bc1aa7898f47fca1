/** Lists snapshots. It loads the index alone, because `ls` should be fast: `Store` loads the code of every verb. */
import type { SnapshotSummary } from '../page-stream.js';
import { noteMissingLocks } from './disk/locking.js';
import { openIndex } from './open-store.js';

/** All snapshots of the store in `dir`, oldest first. Errors: those of `Store.open` for reading. */
export function listSnapshots(dir: string): SnapshotSummary[] {
  noteMissingLocks();
  const index = openIndex(dir, false, false);
  try {
    return index.summaries();
  } finally {
    index.close();
  }
}
