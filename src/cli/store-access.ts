/** Access to the store for verbs. Only verbs that need the store load its code. */
import type { Store } from '../store/store.js';

/** Opens the store, runs `work` and closes the store. */
export async function withStore<T>(
  dir: string,
  options: { write: boolean; create?: boolean },
  work: (store: Store) => T | Promise<T>,
): Promise<T> {
  const { Store } = await import('../store/store.js');
  const store = Store.open(dir, options);
  try {
    return await work(store);
  } finally {
    store.close();
  }
}
