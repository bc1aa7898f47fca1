/**
 * The main thread's side of the store thread: stores, saves and snapshots as src/page-stream.ts has them, each call a
 * message and each answer awaited.
 *
 * Invariants: nothing here blocks; every call is settled, also when the thread dies; a call is settled only when the
 * source that it was given is not at work any more. A thread that died is replaced by the next store that is opened;
 * what was open in it fails from then on.
 */
import { Worker } from 'node:worker_threads';
import { ERROR_CODES, LivesnapError } from '../errors.js';
import {
  BATCH_PAGES,
  type OpenSnapshot,
  PAGE_BYTES,
  type PageSink,
  type PageSource,
  type Progress,
  type Region,
  type SaveResult,
  type SaveSession,
  type SaveTarget,
  type SnapshotMetadata,
  type SnapshotSummary,
} from '../page-stream.js';
import { giveUpWaits } from '../store/disk/waits.js';
import {
  type Answer,
  type Ask,
  type FromStoreThread,
  fromThrownError,
  type RequestName,
  type StoreThreadData,
  type ToStoreThread,
} from './store-thread-messages.js';

/** A store that is open in the store thread. */
export interface DistantStore extends SaveTarget {
  /** What kept the store from being tidied is returned, not thrown. */
  tidy(): Promise<LivesnapError | null>;
  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, NEWER_FORMAT. Only guest memory can be filled from it. */
  openSnapshot(ref: string): Promise<OpenSnapshot>;
  /** Never fails. */
  close(): Promise<void>;
}

export interface StoreThreadOptions {
  readonly log: (sentence: string) => void;
  /** For tests: another thread. */
  readonly url?: URL;
}

export class StoreThread {
  readonly #patience = new SharedArrayBuffer(4);
  #connection: Connection | null = null;

  constructor(readonly options: StoreThreadOptions) {}

  /**
   * Starts the thread, so that it loads its code meanwhile; opening a store does so, too. `withWorkers`: and the page
   * Workers, for a store that is about to be read.
   */
  start({ withWorkers }: { withWorkers: boolean }): void {
    this.#connect(withWorkers);
  }

  /** Errors: those of Store.open. */
  async open(
    dir: string,
    { write, create = false }: { write: boolean; create?: boolean },
  ): Promise<DistantStore> {
    const connection = this.#connect();
    const store = connection.newNumber();
    await connection.ask('open', { store, dir, write, create });
    return new StoreInThread(connection, store);
  }

  /** From now on the store waits for no other process: what would have to fails with STORE_BUSY. */
  giveUpWaits(): void {
    giveUpWaits(this.#patience);
  }

  /** Ends the thread, whatever it is at. What is under way fails. */
  async end(): Promise<void> {
    await this.#connection?.end();
  }

  #connect(startWorkers = false): Connection {
    if (this.#connection === null || this.#connection.failure !== null)
      this.#connection = new Connection(this.options, { patience: this.#patience, startWorkers });
    return this.#connection;
  }
}

interface Call {
  resolve(answer: never): void;
  reject(error: Error): void;
  readonly progress: Progress | undefined;
  readonly source: SourceCall | null;
}

/** A page source that is being read by a call. */
interface SourceCall {
  readonly source: PageSource;
  /** The store's batches, by number. */
  readonly buffers: Uint8Array[];
  /** Settles when the source is not at work. */
  working: Promise<void>;
  failure: Error | null;
}

/** The LivesnapError that ended the thread, which loses its class on the way here; null for any other error. */
function ownError(error?: Error): LivesnapError | null {
  const { code, hint } = (error ?? {}) as Partial<LivesnapError>;
  if (!error || code === undefined || !Object.hasOwn(ERROR_CODES, code)) return null;
  return LivesnapError.fromJSON({ code, message: error.message, hint: hint ?? null });
}

/** One Worker, for as long as it lives. */
class Connection {
  readonly #worker: Worker;
  readonly #log: (sentence: string) => void;
  readonly #calls = new Map<number, Call>();
  #lastNumber = 0;
  failure: LivesnapError | null = null;

  constructor(
    { log, url = new URL('./store-thread.js', import.meta.url) }: StoreThreadOptions,
    data: StoreThreadData,
  ) {
    this.#log = log;
    this.#worker = new Worker(url, { name: 'store thread', workerData: data });
    this.#worker.on('message', (message: FromStoreThread) => this.#receive(message));
    this.#worker.on('error', (error: Error) => this.#fail(error.message, error));
    this.#worker.on('exit', (status) => this.#fail(`it ended with status ${status}`));
    this.#worker.unref(); // after listening, which would hold the process again
  }

  /** For a store, a save, a snapshot or a call. */
  newNumber(): number {
    return ++this.#lastNumber;
  }

  async ask<N extends RequestName>(
    name: N,
    ask: Ask<N>,
    { progress, source }: { progress?: Progress | undefined; source?: PageSource } = {},
  ): Promise<Answer<N>> {
    if (this.failure) throw this.failure;
    const id = this.newNumber();
    const sourceCall: SourceCall | null = source
      ? { source, buffers: [], working: Promise.resolve(), failure: null }
      : null;
    const answer = new Promise<Answer<N>>((resolve, reject) => {
      if (this.#calls.size === 0) this.#worker.ref();
      this.#calls.set(id, { resolve, reject, progress, source: sourceCall });
      this.#worker.postMessage({ type: 'request', id, name, ask } satisfies ToStoreThread);
    });
    if (!sourceCall) return answer;
    try {
      return await answer;
    } catch (error) {
      await sourceCall.working;
      // What the source said, and not what the store made of it.
      throw sourceCall.failure ?? error;
    }
  }

  #receive(message: FromStoreThread): void {
    const call = this.#calls.get(message.id);
    switch (message.type) {
      case 'answer':
        this.#settled(message.id);
        call?.resolve(message.answer as never);
        break;
      case 'failure':
        this.#settled(message.id);
        call?.reject(fromThrownError(message.error));
        break;
      case 'progress':
        call?.progress?.(message.doneBytes, message.totalBytes);
        break;
      case 'next':
        if (call?.source) call.source.working = this.#give(message, call.source);
        break;
    }
  }

  #settled(id: number): void {
    this.#calls.delete(id);
    if (this.#calls.size === 0) this.#worker.unref();
  }

  /** Never rejects. */
  async #give({ id, buffer, shared }: FromStoreThread & { type: 'next' }, call: SourceCall): Promise<void> {
    const post = (message: ToStoreThread): void => this.#worker.postMessage(message);
    if (shared) call.buffers[buffer] = new Uint8Array(shared, 0, BATCH_PAGES * PAGE_BYTES);
    try {
      const run = await call.source.next(call.buffers[buffer]!);
      post({ type: 'given', id, run, regions: call.source.regions });
    } catch (error) {
      call.failure = error as Error;
      post({ type: 'notGiven', id });
    }
  }

  #fail(why: string, error?: Error): void {
    if (this.failure) return;
    this.failure =
      ownError(error) ??
      new LivesnapError('SYSTEM', `the store thread of the machine's process failed: ${why}`, {
        hint: 'Try again. The log in the run directory of the machine has more.',
        cause: error,
      });
    if (error || this.#calls.size > 0) this.#log(`the store thread has failed: ${error?.stack ?? why}`);
    for (const { reject } of this.#calls.values()) reject(this.failure);
    this.#calls.clear();
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

class StoreInThread implements DistantStore {
  constructor(
    readonly connection: Connection,
    readonly store: number,
  ) {}

  async beginSave({
    parent,
    tag = null,
  }: {
    parent: string | null;
    tag?: string | null;
  }): Promise<SaveSession> {
    const { connection, store } = this;
    const save = connection.newNumber();
    const begun = await connection.ask('beginSave', { store, save, parent, tag });
    return new SaveInThread(connection, save, begun.parent);
  }

  async tidy(): Promise<LivesnapError | null> {
    const error = await this.connection.ask('tidy', { store: this.store });
    return error && LivesnapError.fromJSON(error);
  }

  async openSnapshot(ref: string): Promise<OpenSnapshot> {
    const { connection, store } = this;
    const snapshot = connection.newNumber();
    const opened = await connection.ask('openSnapshot', { store, snapshot, ref });
    return new SnapshotInThread(connection, snapshot, opened.summary, opened.metadata, opened.regions);
  }

  async close(): Promise<void> {
    await this.connection.ask('close', { store: this.store }).catch(() => {}); // a thread that died has none open
  }
}

class SaveInThread implements SaveSession {
  constructor(
    readonly connection: Connection,
    readonly save: number,
    readonly parent: string | null,
  ) {}

  async store(source: PageSource, progress?: Progress): Promise<void> {
    const { save, connection } = this;
    await connection.ask('store', { save, regions: source.regions }, { source, progress });
  }

  commit(metadata: SnapshotMetadata): Promise<SaveResult> {
    return this.connection.ask('commit', { save: this.save, metadata });
  }

  /** Does not fail: what a thread that died had not committed is not visible. */
  async abort(): Promise<void> {
    await this.connection.ask('abort', { save: this.save }).catch(() => {});
  }
}

class SnapshotInThread implements OpenSnapshot {
  constructor(
    readonly connection: Connection,
    readonly snapshot: number,
    readonly summary: SnapshotSummary,
    readonly metadata: SnapshotMetadata,
    readonly regions: readonly Region[],
  ) {}

  async fill({ regions, memories }: PageSink, progress?: Progress): Promise<void> {
    if (memories === undefined) throw new TypeError('pages cross no thread: only guest memory can be filled');
    const { snapshot, connection } = this;
    await connection.ask('fill', { snapshot, regions, memories }, { progress });
  }

  close(): void {
    this.connection.ask('closeSnapshot', { snapshot: this.snapshot }).catch(() => {});
  }
}
