/** How verbs come to the store. The store's code is loaded by those verbs only that need it. */
import type { Store } from '../store/store.js';

/** Opens the store for the time of `work`. */
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
