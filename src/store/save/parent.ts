/** The parent of a save: pinned until the save ends, so that gc keeps its chunks even if it is removed meanwhile. */
import { type ErrorCode, LivesnapError } from '../../errors.js';
import type { StoreContext } from '../context.js';
import { Pin } from '../pins.js';
import { readSnapshotFile, type SnapshotFile } from '../snapshot/snapshot-file.js';

export interface Parent {
  readonly pin: Pin;
  readonly file: SnapshotFile;
}

/** Null when there is no such snapshot, or its file is damaged: the save is full then. Errors: STORE_BUSY. */
export function openParent(context: StoreContext, id: string | null): Parent | null {
  const pin = id === null ? null : pinParent(context, id);
  if (!pin) return null;
  try {
    return { pin, file: readSnapshotFile(context.dir, pin.summary.id) };
  } catch (error) {
    pin.release();
    return nullIf('DAMAGED', error);
  }
}

function pinParent(context: StoreContext, id: string): Pin | null {
  try {
    return Pin.take(context, () => {
      if (!context.index.has(id)) throw new LivesnapError('NO_SUCH_SNAPSHOT', `the parent ${id} was removed`);
      return id;
    });
  } catch (error) {
    return nullIf('NO_SUCH_SNAPSHOT', error);
  }
}

function nullIf(code: ErrorCode, error: unknown): null {
  if (error instanceof LivesnapError && error.code === code) return null;
  throw error;
}
