/**
 * The Worker that opens the store for requests. SQLite, file locks and the disk block this thread, never the server's
 * main thread, which carries the consoles of all machines.
 *
 * Invariant: between two queries no store is open, so gc and repair are not kept waiting.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { asLivesnapError, LivesnapError, type PlainError } from '../errors.js';
import { StoreVerbs } from '../host/store-verbs.js';

/** The methods of the library that can be asked for. Their arguments and results can be cloned by postMessage. */
const QUERIES = [
  ...(['list', 'find', 'details', 'diff', 'stats', 'map', 'uniqueBytes', 'fit'] as const),
  ...(['remove', 'tag', 'untag', 'writeFile', 'gc', 'forget', 'export'] as const),
] as const;

export type QueryName = (typeof QUERIES)[number];
export type QueryArguments<N extends QueryName> = Parameters<StoreVerbs[N]>;
export type QueryResult<N extends QueryName> = Awaited<ReturnType<StoreVerbs[N]>>;

/** The `workerData`. */
export interface StoreQueriesData {
  readonly storeDir: string;
}

export interface QueryRequest {
  readonly number: number;
  readonly name: QueryName;
  readonly args: readonly unknown[];
}

export type QueryResponse =
  | { readonly number: number; readonly result: unknown }
  | { readonly number: number; readonly error: PlainError };

async function answer({ number, name, args }: QueryRequest): Promise<QueryResponse> {
  const store = new StoreVerbs((workerData as StoreQueriesData).storeDir);
  try {
    const query = store[name] as (...args: unknown[]) => Promise<unknown>;
    return { number, result: await query.call(store, ...args) };
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
