/**
 * Clears the file name of a snapshot that a copy brings. A copy has the ID of its original, so the name may be taken:
 * by another copy of the same snapshot, or by a removed snapshot that is still being read.
 *
 * Invariant: a file that is locked, or that the index lists, is never deleted.
 */
import { LivesnapError } from '../../errors.js';
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { lockState } from '../disk/file-locks.js';
import { at } from '../disk/layout.js';
import { sleepAStep } from '../disk/waits.js';
import { unlinkUnlisted } from '../gc/unlisted-files.js';
import { snapshotFile } from '../snapshot/snapshot-file.js';

/** Steps to wait for another copy to commit its file: about 3 s. */
const COPY_STEPS = 300;
/** Steps to wait for a reader. gc also shares the lock, but only for a moment. */
const READER_STEPS = 20;

/** Another copy has committed the same snapshot. */
export class SnapshotExistsError extends LivesnapError {
  constructor(id: string) {
    super('STORE_BUSY', `another copy has just brought snapshot ${id}`, { hint: 'Nothing is left to do.' });
  }
}

/** Resolves when no file has the snapshot's name. Errors: STORE_BUSY, DAMAGED; {@link SnapshotExistsError}. */
export async function makeRoom(context: StoreContext, id: string): Promise<void> {
  const { dir, index } = context;
  const path = at(dir, snapshotFile(id));
  for (let step = 0; step < COPY_STEPS; step++) {
    if (index.has(id)) throw new SnapshotExistsError(id);
    unlinkUnlisted(context, [{ path, isListed: () => index.has(id) }]);
    const state = lockState(path);
    if (state === 'gone') return;
    if (state === 'unreadable') throw new DamageError(snapshotFile(id), null, 'the disk cannot read it');
    if (state === 'shared' && step >= READER_STEPS)
      throw busy(`snapshot ${id} was removed from ${dir} but is still being read`);
    await sleepAStep();
  }
  throw busy(`another copy is bringing snapshot ${id} to ${dir}`);
}

const busy = (message: string): LivesnapError =>
  new LivesnapError('STORE_BUSY', message, {
    hint: 'Wait until it is done, then copy again: the copy resumes.',
  });
