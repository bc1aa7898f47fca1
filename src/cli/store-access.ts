/** How verbs come to the store. The store's code is loaded by those verbs only that need it. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Store } from '../store/store.js';

/** Makes the folders above a store that is to be made; a failure is the store's to tell when it is opened. */
export function makeParent(dir: string): void {
  try {
    mkdirSync(dirname(dir), { recursive: true });
  } catch {}
}

/** Opens the store for the time of `work`. */
export async function withStore<T>(
  dir: string,
  options: { write: boolean; create?: boolean },
  work: (store: Store) => T | Promise<T>,
): Promise<T> {
  const { Store } = await import('../store/store.js');
  if (options.create) makeParent(dir);
  const store = Store.open(dir, options);
  try {
    return await work(store);
  } finally {
    store.close();
  }
}
