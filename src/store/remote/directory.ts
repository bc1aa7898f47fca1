/** The remote that is another directory of this machine. Both ends of the copy run in this process. */
import { copyInProcess } from '../copy/sessions.js';
import { Store } from '../store.js';
import { operandError, requireParent } from './operand-error.js';
import type { Remote } from './remote.js';

export const openDirectory = (dir: string, isPrivate: boolean, fingerprintBits: number): Remote => ({
  /** The snapshots of a source, and the parent of a destination, are found before anything is created. */
  prepare({ direction, refs }) {
    if (direction === 'to') return requireParent(dir);
    try {
      const source = Store.open(dir, { write: false, isPrivate, fingerprintBits });
      try {
        if (typeof refs !== 'function') for (const ref of refs) source.resolve(ref);
      } finally {
        source.close();
      }
    } catch (error) {
      throw operandError(dir, error);
    }
  },
  async copy(store, { direction, refs, ...options }) {
    const write = direction === 'to';
    let other: Store | null = null;
    try {
      other = Store.open(dir, { write, create: write, isPrivate, fingerprintBits });
      const results = await copyInProcess(store, other, direction, refs, options);
      if (write) await other.tidy();
      return results;
    } catch (error) {
      throw operandError(dir, error);
    } finally {
      other?.close();
    }
  },
});
