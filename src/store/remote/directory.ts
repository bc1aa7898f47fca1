/** A store in another directory of this machine: both ends of the copy are in this process. */
import { copyWithin } from '../copy/sessions.js';
import { Store } from '../store.js';
import type { Remote } from './remote.js';

export const openDirectory = (dir: string, fingerprintBits: number): Remote => ({
  async copy(store, { direction, refs, onPlan, progress }) {
    const write = direction === 'to';
    const other = Store.open(dir, { write, create: write, fingerprintBits });
    try {
      const results = await copyWithin(store, other, direction, refs, { onPlan, progress });
      if (write) await other.tidy();
      return results;
    } finally {
      other.close();
    }
  },
});
