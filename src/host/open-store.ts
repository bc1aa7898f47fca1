/** Opens stores. Only calls that need a store load its code. */
import type { Store } from '../store/store.js';

/** The class of stores. Errors: SYSTEM (a module that has compiled parts cannot be loaded). */
export async function loadStore(): Promise<typeof import('../store/store.js')> {
  const stores = await import('../store/store.js');
  const { pageOpsLoaded } = await import('../native/pages.js');
  await pageOpsLoaded;
  return stores;
}

/** Opens the store, runs `work` and closes the store. */
export async function withStore<T>(
  dir: string,
  options: { write: boolean; create?: boolean },
  work: (store: Store) => T | Promise<T>,
): Promise<T> {
  const { Store } = await loadStore();
  const store = Store.open(dir, options);
  try {
    return await work(store);
  } finally {
    store.close();
  }
}
