/**
 * Asks the store, in the Worker of store-queries.ts. The Worker starts with the first query and ends after a minute
 * without one: an idle server is small.
 */
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../errors.js';
import type { QueryArguments, QueryName, QueryRequest, QueryResponse, QueryResult } from './store-queries.js';

const IDLE_MS = 60_000;
/** More wait for nothing: each has the store open. */
const MAX_PENDING = 64;
const STORE_QUERIES = new URL('./store-queries.js', import.meta.url);

interface Pending {
  resolve(result: never): void;
  reject(error: unknown): void;
}

export class StoreClient {
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | undefined;
  readonly #pending = new Map<number, Pending>();
  #lastNumber = 0;

  constructor(readonly storeDir: string) {}

  /** Errors: those of the query; NOT_POSSIBLE_NOW (too many are waiting), SYSTEM (the Worker died). */
  async ask<N extends QueryName>(name: N, ...args: QueryArguments<N>): Promise<QueryResult<N>> {
    if (this.#pending.size >= MAX_PENDING)
      throw new LivesnapError('NOT_POSSIBLE_NOW', 'too many requests are waiting for the store', {
        hint: 'Try again later.',
      });
    clearTimeout(this.#idle);
    const worker = this.#worker ?? this.#start();
    this.#worker = worker;
    const number = ++this.#lastNumber;
    try {
      return await new Promise<QueryResult<N>>((resolve, reject) => {
        this.#pending.set(number, { resolve, reject });
        worker.postMessage({ number, name, args } satisfies QueryRequest);
      });
    } finally {
      this.#pending.delete(number);
      if (this.#pending.size === 0) this.#idle = setTimeout(() => void this.close(), IDLE_MS).unref();
    }
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = null;
    await worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(STORE_QUERIES, {
      name: 'store queries',
      workerData: { storeDir: this.storeDir },
    });
    worker.on('message', (response: QueryResponse) => {
      const pending = this.#pending.get(response.number);
      if ('error' in response) pending?.reject(LivesnapError.fromJSON(response.error));
      else pending?.resolve(response.result as never);
    });
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', () => {
      if (this.#worker !== worker) return;
      this.#worker = null;
      const error = new LivesnapError('SYSTEM', 'the thread that reads the store died', { cause });
      for (const { reject } of this.#pending.values()) reject(error);
    });
    return worker;
  }
}
