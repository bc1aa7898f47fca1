/**
 * The client of the store thread, on the main thread: stores, saves and snapshots with the interfaces of
 * src/page-stream.ts, where each call is a message.
 *
 * Invariants:
 * - Nothing here blocks.
 * - Every call settles, also when the thread dies, and only once its page source is idle.
 * - After the thread has died, everything that was open in it fails. The next store that is opened gets a new thread.
 * - A thread in which nothing has been open for a minute is ended. Its start takes as long as a few small saves, and it
 *   keeps 20 MiB.
 */
import { Worker } from 'node:worker_threads';
import { LivesnapError } from '../errors.js';
import {
  BATCH_PAGES,
  type OpenRegion,
  type OpenSnapshot,
  PAGE_BYTES,
  type PageSink,
  type PageSource,
  type Progress,
  type Region,
  type SavedRegion,
  type SaveResult,
  type SaveSession,
  type SaveTarget,
  type SnapshotMetadata,
  type SnapshotSummary,
} from '../page-stream.js';
import { cancelWaits } from '../store/disk/waits.js';
import {
  type CallArgs,
  type CallResult,
  type FromStoreThread,
  fromThrownError,
  type StoreCallName,
  type StoreThreadData,
  type ToStoreThread,
} from './store-thread-messages.js';

/** A store that is open in the store thread. */
export interface StoreProxy extends SaveTarget {
  /** Returns the error that kept it from tidying; throws none. */
  tidy(): Promise<LivesnapError | null>;
  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, NEWER_FORMAT. Such a snapshot fills only guest memory. */
  openSnapshot(ref: string): Promise<OpenSnapshot>;
  /** Does not fail. */
  close(): Promise<void>;
}

export interface StoreThreadOptions {
  readonly log: (sentence: string) => void;
  /** For tests: another thread. */
  readonly url?: URL;
  /** For tests: how long a thread may rest. */
  readonly restMs?: number;
}

const REST_MS = 60_000;

export class StoreThread {
  readonly #cancelFlag = new SharedArrayBuffer(4);
  #connection: Connection | null = null;

  constructor(readonly options: StoreThreadOptions) {}

  /** Starts the thread early, so that its code is loaded when a store is opened. */
  start(): void {
    this.#connect();
  }

  /** Errors: those of Store.open. */
  async open(
    dir: string,
    { write, create = false }: { write: boolean; create?: boolean },
  ): Promise<StoreProxy> {
    const connection = this.#connect();
    const store = connection.newNumber();
    const { key } = await connection.call('open', { store, dir, write, create });
    return new ThreadStore(connection, store, key, connection.opened());
  }

  /** From now on the store does not wait for other processes: it fails with STORE_BUSY instead. */
  cancelWaits(): void {
    cancelWaits(this.#cancelFlag);
  }

  /** Ends the thread. Calls in progress fail. */
  async end(): Promise<void> {
    await this.#connection?.end();
  }

  #connect(): Connection {
    if (this.#connection === null || this.#connection.failure !== null)
      this.#connection = new Connection(this.options, { cancelFlag: this.#cancelFlag });
    return this.#connection;
  }
}

interface PendingCall {
  resolve(result: never): void;
  reject(error: Error): void;
  readonly progress: Progress | undefined;
  readonly source: SourceInUse | null;
}

/** The page source of a pending call. */
interface SourceInUse {
  readonly source: PageSource;
  /** The store's batch buffers, by number. */
  readonly buffers: Uint8Array[];
  /** Settles when the source is idle. */
  working: Promise<void>;
  failure: Error | null;
}

/** One Worker, for as long as it lives. */
class Connection {
  readonly #worker: Worker;
  readonly #log: (sentence: string) => void;
  readonly #calls = new Map<number, PendingCall>();
  readonly #restMs: number;
  /** Stores, snapshots and regions that are open in the thread. */
  #open = 0;
  #rest: NodeJS.Timeout | undefined;
  #lastNumber = 0;
  failure: LivesnapError | null = null;

  constructor(
    { log, url = new URL('./store-thread.js', import.meta.url), restMs = REST_MS }: StoreThreadOptions,
    data: StoreThreadData,
  ) {
    this.#log = log;
    this.#restMs = restMs;
    this.#worker = new Worker(url, {
      name: 'store thread',
      workerData: data,
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
    });
    this.#worker.on('message', (message: FromStoreThread) => this.#receive(message));
    this.#worker.on('error', (error: Error) => this.#fail(error.message, error));
    this.#worker.on('exit', (status) => this.#fail(`it ended with status ${status}`));
    this.#worker.unref(); // after `on`, which keeps the process alive
  }

  /** A number for a store, save, snapshot or call. */
  newNumber(): number {
    return ++this.#lastNumber;
  }

  async call<N extends StoreCallName>(
    name: N,
    args: CallArgs<N>,
    { progress, source }: { progress?: Progress | undefined; source?: PageSource } = {},
  ): Promise<CallResult<N>> {
    if (this.failure) throw this.failure;
    const id = this.newNumber();
    const inUse: SourceInUse | null = source
      ? { source, buffers: [], working: Promise.resolve(), failure: null }
      : null;
    const result = new Promise<CallResult<N>>((resolve, reject) => {
      if (this.#calls.size === 0) this.#worker.ref();
      this.#calls.set(id, { resolve, reject, progress, source: inUse });
      this.#worker.postMessage({ type: 'call', id, name, args } satisfies ToStoreThread);
    });
    if (!inUse) return result;
    try {
      return await result;
    } catch (error) {
      await inUse.working;
      // The source's own error, rather than the one that the store raised because of it.
      throw inUse.failure ?? error;
    }
  }

  #receive(message: FromStoreThread): void {
    const call = this.#calls.get(message.id);
    switch (message.type) {
      case 'result':
        this.#settled(message.id);
        call?.resolve(message.result as never);
        break;
      case 'failure':
        this.#settled(message.id);
        call?.reject(fromThrownError(message.error));
        break;
      case 'progress':
        call?.progress?.(message.doneBytes, message.totalBytes);
        break;
      case 'next':
        if (call?.source) call.source.working = this.#sendBatch(message, call.source);
        break;
    }
  }

  #settled(id: number): void {
    this.#calls.delete(id);
    if (this.#calls.size === 0) this.#worker.unref();
  }

  /** Does not reject. */
  async #sendBatch(
    { id, buffer, shared }: FromStoreThread & { type: 'next' },
    inUse: SourceInUse,
  ): Promise<void> {
    const post = (message: ToStoreThread): void => this.#worker.postMessage(message);
    if (shared) inUse.buffers[buffer] = new Uint8Array(shared, 0, BATCH_PAGES * PAGE_BYTES);
    try {
      const run = await inUse.source.next(inUse.buffers[buffer]!);
      post({ type: 'batch', id, run, regions: inUse.source.regions });
    } catch (error) {
      inUse.failure = error as Error;
      post({ type: 'sourceFailed', id });
    }
  }

  #fail(why: string, error?: Error): void {
    if (this.failure) return;
    this.failure =
      (error && LivesnapError.fromThread(error)) ??
      new LivesnapError('SYSTEM', `the store thread of the machine's process failed: ${why}`, {
        hint: 'Try again. The log in the run directory of the machine has details.',
        cause: error,
      });
    if (error || this.#calls.size > 0) this.#log(`the store thread has failed: ${error?.stack ?? why}`);
    for (const { reject } of this.#calls.values()) reject(this.failure);
    this.#calls.clear();
  }

  /** Something was opened in the thread. Call the result when it is closed. */
  opened(): () => void {
    this.#open++;
    clearTimeout(this.#rest);
    let isOpen = true;
    return () => {
      if (!isOpen) return;
      isOpen = false;
      if (--this.#open === 0) this.#beginRest();
    };
  }

  #beginRest(): void {
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#endIfResting(), this.#restMs).unref();
  }

  #endIfResting(): void {
    if (this.#open > 0 || this.failure) return;
    if (this.#calls.size > 0) {
      this.#beginRest(); // a store is being opened, and that may fail
      return;
    }
    this.failure = new LivesnapError('SYSTEM', 'the store thread was ended because it rested');
    void this.#worker.terminate();
  }

  async end(): Promise<void> {
    clearTimeout(this.#rest);
    await this.#worker.terminate();
  }
}

class ThreadStore implements StoreProxy {
  constructor(
    readonly connection: Connection,
    readonly store: number,
    readonly key: string,
    readonly closed: () => void,
  ) {}

  async beginSave({
    regions,
    tags = [],
  }: {
    regions: readonly SavedRegion[];
    tags?: readonly string[];
  }): Promise<SaveSession> {
    const { connection, store } = this;
    const save = connection.newNumber();
    const begun = await connection.call('beginSave', { store, save, regions, tags });
    return new ThreadSave(connection, save, begun.bases, begun.parent);
  }

  async tidy(): Promise<LivesnapError | null> {
    const error = await this.connection.call('tidy', { store: this.store });
    return error && LivesnapError.fromJSON(error);
  }

  async openSnapshot(ref: string): Promise<OpenSnapshot> {
    const { connection, store } = this;
    const snapshot = connection.newNumber();
    const opened = await connection.call('openSnapshot', { store, snapshot, ref });
    const closed = connection.opened();
    return new ThreadSnapshot(connection, snapshot, opened, closed);
  }

  async close(): Promise<void> {
    await this.connection.call('close', { store: this.store }).catch(() => {}); // a dead thread has no store open
    this.closed();
  }
}

class ThreadSave implements SaveSession {
  constructor(
    readonly connection: Connection,
    readonly save: number,
    readonly bases: readonly (number | null)[],
    readonly parent: string | null,
  ) {}

  async store(source: PageSource, progress?: Progress): Promise<void> {
    const { save, connection } = this;
    const { regions, sequential = [] } = source;
    await connection.call('store', { save, regions, sequential }, { source, progress });
  }

  commit(metadata: SnapshotMetadata): Promise<SaveResult> {
    return this.connection.call('commit', { save: this.save, metadata });
  }

  /** Does not fail: nothing that a dead thread has not committed is visible. */
  async abort(): Promise<void> {
    await this.connection.call('abort', { save: this.save }).catch(() => {});
  }
}

class ThreadSnapshot implements OpenSnapshot {
  readonly summary: SnapshotSummary;
  readonly metadata: SnapshotMetadata;
  readonly regions: readonly Region[];

  constructor(
    readonly connection: Connection,
    readonly snapshot: number,
    opened: CallResult<'openSnapshot'>,
    readonly closed: () => void,
  ) {
    this.summary = opened.summary;
    this.metadata = opened.metadata;
    this.regions = opened.regions;
  }

  async fill({ regions, memories }: PageSink, progress?: Progress): Promise<void> {
    if (memories === undefined)
      throw new TypeError('only guest memory can be filled: pages do not cross threads');
    const { snapshot, connection } = this;
    await connection.call('fill', { snapshot, regions, memories }, { progress });
  }

  async openRegion(name: string): Promise<OpenRegion> {
    const { connection, snapshot } = this;
    const region = connection.newNumber();
    const { sizeBytes, reader } = await connection.call('openRegion', { snapshot, region, name });
    const closed = connection.opened();
    const close = (): void => {
      connection.call('closeRegion', { region }).catch(() => {});
      closed();
    };
    return { sizeBytes, reader, close };
  }

  close(): void {
    this.connection.call('closeSnapshot', { snapshot: this.snapshot }).catch(() => {});
    this.closed();
  }
}
