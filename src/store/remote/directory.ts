/** The remote that is another directory of this machine. Both ends of the copy run in this process. */
import { copyInProcess } from '../copy/sessions.js';
import { Store } from '../store.js';
import type { Remote } from './remote.js';

export const openDirectory = (dir: string, isPrivate: boolean, fingerprintBits: number): Remote => ({
  async copy(store, { direction, refs, onPlan, progress }) {
    const write = direction === 'to';
    const other = Store.open(dir, { write, create: write, isPrivate, fingerprintBits });
    try {
      const results = await copyInProcess(store, other, direction, refs, { onPlan, progress });
      if (write) await other.tidy();
      return results;
    } finally {
      other.close();
    }
  },
});
