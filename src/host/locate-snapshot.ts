/** Where a snapshot is that a user named: in the store, or in a directory made by `export`. */
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { LivesnapError } from '../errors.js';
import { withStore } from './open-store.js';

/**
 * Finds a snapshot in the store, or in an exported directory that holds only this one.
 * Errors: USAGE, NO_SUCH_SNAPSHOT, NO_SUCH_FILE.
 */
export async function locateSnapshot(
  storeDir: string,
  reference: string,
): Promise<{ dir: string; ref: string }> {
  try {
    await withStore(storeDir, { write: false }, (store) => store.resolve(reference));
    return { dir: storeDir, ref: reference };
  } catch (error) {
    const isMissing =
      error instanceof LivesnapError && (error.code === 'NO_SUCH_SNAPSHOT' || error.code === 'NO_SUCH_FILE');
    if (!isMissing || !statSync(reference, { throwIfNoEntry: false })?.isDirectory()) throw error;
  }
  const dir = resolve(reference);
  const { exportedSnapshots } = await import('../store/remote/export.js');
  const ids = exportedSnapshots(dir);
  if (ids.length !== 1)
    throw new LivesnapError(
      'USAGE',
      `${dir} holds ${ids.length === 0 ? 'no snapshot' : `${ids.length} snapshots`}, not 1`,
      {
        hint: 'To choose one: livesnap restore SNAPSHOT --store DIR',
      },
    );
  return { dir, ref: ids[0]! };
}
