/**
 * The Worker that opens the store for requests. SQLite, file locks and the disk block this thread, never the server's
 * main thread, which carries the consoles of all machines.
 *
 * Invariant: between two queries no store is open, so gc and repair are not kept waiting.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { asLivesnapError, LivesnapError, type PlainError } from '../errors.js';
import { withStore } from '../host/open-store.js';
import type { Store } from '../store/store.js';

/** What can be asked. The arguments and the result can be cloned by postMessage. */
export const QUERIES = {
  list: (store: Store) => store.list(),
  find: (store: Store, ref: string) => store.find(ref),
  show: (store: Store, ref: string) => store.show(ref),
  diff: (store: Store, a: string, b: string) => store.diff(a, b),
  stats: (store: Store) => store.stats(),
  remove: (store: Store, ref: string) => store.remove([ref]),
  tag: (store: Store, ref: string, tag: string) => store.addTags(ref, [tag]),
  untag: (store: Store, tag: string) => store.removeTags([tag]),
  /** Writes a stored file to a path. */
  get: (store: Store, ref: string, path: string) => store.get(ref, path),
} as const;

const WRITES: ReadonlySet<QueryName> = new Set(['remove', 'tag', 'untag']);

export type QueryName = keyof typeof QUERIES;
type Rest<A> = A extends [Store, ...infer R] ? R : never;
export type QueryArguments<N extends QueryName> = Rest<Parameters<(typeof QUERIES)[N]>>;
export type QueryResult<N extends QueryName> = Awaited<ReturnType<(typeof QUERIES)[N]>>;

/** The `workerData`. */
export interface StoreQueriesData {
  readonly storeDir: string;
}

export interface QueryRequest {
  readonly number: number;
  readonly name: QueryName;
  readonly args: readonly string[];
}

export type QueryResponse =
  | { readonly number: number; readonly result: unknown }
  | { readonly number: number; readonly error: PlainError };

async function answer({ number, name, args }: QueryRequest): Promise<QueryResponse> {
  const { storeDir } = workerData as StoreQueriesData;
  const query = QUERIES[name] as (store: Store, ...args: readonly string[]) => unknown;
  try {
    const result = await withStore(storeDir, { write: WRITES.has(name) }, (store) => query(store, ...args));
    return { number, result };
  } catch (error) {
    // A store that does not exist yet has no snapshots.
    const isAbsent = error instanceof LivesnapError && error.code === 'NO_SUCH_FILE';
    if (isAbsent && name === 'list') return { number, result: [] };
    return { number, error: asLivesnapError(error).toJSON() };
  }
}

parentPort?.on('message', (request: QueryRequest) => {
  void answer(request).then((response) => parentPort!.postMessage(response));
});
