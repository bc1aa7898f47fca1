/**
 * Room for the file of a snapshot that a copy brings: its id is that of the original, so another copy may bring it, too,
 * or one that was removed may still be there.
 *
 * Invariant: a file that the index wants, or that anybody holds, is left alone.
 */
import { LivesnapError } from '../../errors.js';
import type { StoreContext } from '../context.js';
import { lockState } from '../disk/file-locks.js';
import { at } from '../disk/layout.js';
import { sleepAStep } from '../disk/waits.js';
import { unlinkUnlisted } from '../gc/unlisted-files.js';
import { snapshotFile } from '../snapshot/snapshot-file.js';

/** How often it is looked whether another copy, which has written the file, has committed it: for some seconds. */
const TRIES = 300;
/** How often it is looked whether a reader has gone: gc, too, shares the lock for a moment. */
const READER_TRIES = 20;

/** Another copy has brought the snapshot meanwhile. */
export class IsThereError extends LivesnapError {
  constructor(id: string) {
    super('STORE_BUSY', `another copy has brought the snapshot ${id} meanwhile`, { hint: 'It is there.' });
  }
}

/** Resolves when no file has the snapshot's name. Errors: STORE_BUSY; {@link IsThereError}. */
export async function makeRoom(context: StoreContext, id: string): Promise<void> {
  const { dir, index } = context;
  const path = at(dir, snapshotFile(id));
  for (let tries = 0; tries < TRIES; tries++) {
    if (index.has(id)) throw new IsThereError(id);
    unlinkUnlisted(context, [{ path, isListed: () => index.has(id) }]);
    const state = lockState(path);
    if (state === 'gone') return;
    if (state === 'shared' && tries >= READER_TRIES)
      throw new LivesnapError(
        'STORE_BUSY',
        `the snapshot ${id} was removed from ${dir} and is still read there`,
        {
          hint: 'Copy it again when that has ended; what has arrived is kept.',
        },
      );
    await sleepAStep();
  }
  throw new LivesnapError('STORE_BUSY', `another copy is just bringing the snapshot ${id} to ${dir}`, {
    hint: 'Copy it again when that has ended; what has arrived is kept.',
  });
}
