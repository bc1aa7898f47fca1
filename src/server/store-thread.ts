/**
 * The store thread: the Worker of a machine's process that does everything with src/store, so that nothing which the
 * store waits for (locks of other processes, SQLite, the disk) blocks the main thread.
 *
 * Data: requests come as messages and are done beside each other, as their awaits allow. Pages of a save come in the
 * store's own batches, which the main thread fills. Pages of a restore go from the page Workers straight into the
 * memories of the machine. Invariant: whatever this thread waits for, the main thread can end the wait (waits.ts), and
 * the process can exit.
 */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import type { OpenSnapshot, PageRun, PageSource, Progress, Region, SaveSession } from '../page-stream.js';
import { sharePatience } from '../store/disk/waits.js';
import type { Store } from '../store/store.js';
import { startPageWorkers } from '../store/worker/page-pool.js';
import {
  type Answer,
  type Ask,
  type FromStoreThread,
  type RequestName,
  type StoreThreadData,
  type ToStoreThread,
  toThrownError,
} from './store-thread-messages.js';

/** Progress is told no more often than this. */
const PROGRESS_STEP_MS = 50;

const { patience, startWorkers } = workerData as StoreThreadData;
sharePatience(patience);
// They load their code beside the store's.
if (startWorkers) startPageWorkers();
const { Store: Stores } = await import('../store/store.js');

const port = parentPort!;
const post = (message: FromStoreThread): void => port.postMessage(message);

const stores = new Map<number, Store>();
const saves = new Map<number, SaveSession>();
const snapshots = new Map<number, OpenSnapshot>();
/** The sources of the `store` requests under way. */
const sources = new Map<number, DistantSource>();

function numbered<T>(things: ReadonlyMap<number, T>, number: number): T {
  const thing = things.get(number);
  assert(thing !== undefined, 'the main thread names something that is not open');
  return thing;
}

/** The page source of the main thread. */
class DistantSource implements PageSource {
  readonly #buffers = new Map<ArrayBufferLike, number>();
  #waiting: { resolve: (run: PageRun | null) => void; reject: (error: Error) => void } | null = null;

  constructor(
    readonly id: number,
    public regions: readonly Region[],
  ) {}

  next(into: Uint8Array): Promise<PageRun | null> {
    const { buffer, byteOffset } = into;
    assert(buffer instanceof SharedArrayBuffer && byteOffset === 0, 'a batch is not shared');
    let number = this.#buffers.get(buffer);
    const shared = number === undefined ? buffer : null;
    number ??= this.#buffers.size;
    this.#buffers.set(buffer, number);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      post({ type: 'next', id: this.id, buffer: number, shared });
    });
  }

  given(run: PageRun | null, regions: readonly Region[]): void {
    this.regions = regions;
    this.#waiting?.resolve(run);
  }

  notGiven(): void {
    this.#waiting?.reject(new Error('the source has failed'));
  }
}

function progressOf(id: number): Progress {
  let saidMs = Number.NEGATIVE_INFINITY;
  return (doneBytes, totalBytes) => {
    const nowMs = performance.now();
    if (nowMs - saidMs < PROGRESS_STEP_MS) return;
    saidMs = nowMs;
    post({ type: 'progress', id, doneBytes, totalBytes });
  };
}

const handlers: {
  [N in RequestName]: (ask: Ask<N>, id: number) => Answer<N> | Promise<Answer<N>>;
} = {
  open({ store, dir, write, create }) {
    stores.set(store, Stores.open(dir, { write, create }));
    return null;
  },
  async tidy({ store }) {
    return (await numbered(stores, store).tidy())?.toJSON() ?? null;
  },
  close({ store }) {
    stores.get(store)?.close();
    stores.delete(store);
    return null;
  },
  async beginSave({ store, save, parent, tag }) {
    const session = await numbered(stores, store).beginSave({ parent, tag });
    saves.set(save, session);
    return { parent: session.parent };
  },
  async store({ save, regions }, id) {
    const source = new DistantSource(id, regions);
    sources.set(id, source);
    try {
      await numbered(saves, save).store(source, progressOf(id));
      return null;
    } finally {
      sources.delete(id);
    }
  },
  async commit({ save, metadata }) {
    const result = await numbered(saves, save).commit(metadata);
    saves.delete(save);
    return result;
  },
  async abort({ save }) {
    const session = saves.get(save);
    saves.delete(save);
    await session?.abort();
    return null;
  },
  async openSnapshot({ store, snapshot, ref }) {
    const opened = await numbered(stores, store).openSnapshot(ref);
    snapshots.set(snapshot, opened);
    const { summary, metadata, regions } = opened;
    // A view would take the whole file with it.
    return { summary, metadata: { ...metadata, state: Uint8Array.from(metadata.state) }, regions };
  },
  async fill({ snapshot, regions, memories }, id) {
    const write = (): never => assert.fail('every region is a memory, which the page Workers write');
    await numbered(snapshots, snapshot).fill({ regions, memories, write }, progressOf(id));
    return null;
  },
  closeSnapshot({ snapshot }) {
    snapshots.get(snapshot)?.close();
    snapshots.delete(snapshot);
    return null;
  },
};

async function answer(id: number, name: RequestName, ask: unknown): Promise<void> {
  try {
    post({ type: 'answer', id, answer: await handlers[name](ask as never, id) });
  } catch (error) {
    post({ type: 'failure', id, error: toThrownError(error) });
  }
}

port.on('message', (message: ToStoreThread) => {
  if (message.type === 'request') void answer(message.id, message.name, message.ask);
  else if (message.type === 'given') sources.get(message.id)?.given(message.run, message.regions);
  else sources.get(message.id)?.notGiven();
});
