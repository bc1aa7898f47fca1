/**
 * The store thread: the Worker of a machine's process in which all of src/store runs. Locks of other processes, SQLite
 * and the disk block this thread, never the main thread.
 *
 * Calls arrive as messages and run concurrently, as their awaits allow. The main thread fills the batches of a save. In a
 * restore, native threads fill the memories of the machine.
 *
 * It also runs the page jobs of saves (src/store/worker). Native threads encode and write frames meanwhile.
 *
 * Invariant: the main thread can cancel every wait of this thread (src/store/disk/waits.ts), and the process can exit.
 */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { loadSqlite } from '../native/modules.js';
import type {
  OpenRegion,
  OpenSnapshot,
  PageRun,
  PageSource,
  Progress,
  Region,
  SaveSession,
} from '../page-stream.js';
import { useCancelFlag } from '../store/disk/waits.js';
import type { Store } from '../store/store.js';
import {
  type CallArgs,
  type CallResult,
  type FromStoreThread,
  type StoreCallName,
  type StoreThreadData,
  type ToStoreThread,
  toThrownError,
} from './store-thread-messages.js';

const PROGRESS_INTERVAL_MS = 50;
/** After a save. The next one would only take the memory again. */
const TRIM_AFTER_MS = 500;

useCancelFlag((workerData as StoreThreadData).cancelFlag);
const loading = Promise.all([import('../store/store.js'), import('../native/pages.js')]);
// What fails here fails again in `open`, which awaits it.
loading.then(() => loadSqlite()).catch(() => {});

const port = parentPort!;
const post = (message: FromStoreThread): void => port.postMessage(message);

/** Gives memory back that the last save used, unless there is another one. */
function trimMemory(): void {
  if (saves.size > 0) return;
  void loading.then(([{ Store: Stores }]) => Stores.trimMemory());
}
let trimming: NodeJS.Timeout | undefined;

const stores = new Map<number, Store>();
const saves = new Map<number, SaveSession>();
const snapshots = new Map<number, OpenSnapshot>();
const openRegions = new Map<number, OpenRegion>();
/** The sources of `store` calls in progress, by call. */
const sources = new Map<number, MainThreadSource>();

function numbered<T>(things: ReadonlyMap<number, T>, number: number): T {
  const thing = things.get(number);
  assert(thing !== undefined, 'the number names nothing that is open');
  return thing;
}

/** The page source that the main thread has. */
class MainThreadSource implements PageSource {
  readonly #buffers = new Map<ArrayBufferLike, number>();
  #waiting: { resolve: (run: PageRun | null) => void; reject: (error: Error) => void } | null = null;

  constructor(
    readonly id: number,
    public regions: readonly Region[],
    readonly sequential: readonly number[],
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

  resolve(run: PageRun | null, regions: readonly Region[]): void {
    this.regions = regions;
    this.#waiting?.resolve(run);
  }

  reject(): void {
    this.#waiting?.reject(new Error('the source has failed'));
  }
}

function progressOf(id: number): Progress {
  let lastMs = Number.NEGATIVE_INFINITY;
  return (doneBytes, totalBytes) => {
    const nowMs = performance.now();
    if (nowMs - lastMs < PROGRESS_INTERVAL_MS) return;
    lastMs = nowMs;
    post({ type: 'progress', id, doneBytes, totalBytes });
  };
}

const handlers: {
  [N in StoreCallName]: (args: CallArgs<N>, id: number) => CallResult<N> | Promise<CallResult<N>>;
} = {
  async open({ store, dir, write, create }) {
    clearTimeout(trimming);
    const [{ Store: Stores }, { pageOpsLoaded }] = await loading;
    await pageOpsLoaded;
    const opened = Stores.open(dir, { write, create });
    stores.set(store, opened);
    return { key: opened.key };
  },
  async tidy({ store }) {
    return (await numbered(stores, store).tidy())?.toJSON() ?? null;
  },
  close({ store }) {
    stores.get(store)?.close();
    stores.delete(store);
    clearTimeout(trimming);
    trimming = setTimeout(trimMemory, TRIM_AFTER_MS).unref();
    return null;
  },
  async beginSave({ store, save, regions, tags }) {
    const session = await numbered(stores, store).beginSave({ regions, tags });
    saves.set(save, session);
    return { bases: session.bases, parent: session.parent };
  },
  async store({ save, regions, sequential }, id) {
    const source = new MainThreadSource(id, regions, sequential);
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
    // A copy: a view would be cloned with the whole file behind it.
    return { summary, metadata: { ...metadata, state: Uint8Array.from(metadata.state) }, regions };
  },
  async fill({ snapshot, regions, memories }, id) {
    const write = (): never => assert.fail('a native fill writes every region');
    await numbered(snapshots, snapshot).fill({ regions, memories, write }, progressOf(id));
    return null;
  },
  async openRegion({ snapshot, region, name }) {
    const opened = await numbered(snapshots, snapshot).openRegion(name);
    openRegions.set(region, opened);
    return { sizeBytes: opened.sizeBytes, reader: opened.reader };
  },
  closeRegion({ region }) {
    openRegions.get(region)?.close();
    openRegions.delete(region);
    return null;
  },
  closeSnapshot({ snapshot }) {
    snapshots.get(snapshot)?.close();
    snapshots.delete(snapshot);
    return null;
  },
};

async function run(id: number, name: StoreCallName, args: unknown): Promise<void> {
  try {
    post({ type: 'result', id, result: await handlers[name](args as never, id) });
  } catch (error) {
    post({ type: 'failure', id, error: toThrownError(error) });
  }
}

port.on('message', (message: ToStoreThread) => {
  if (message.type === 'call') void run(message.id, message.name, message.args);
  else if (message.type === 'batch') sources.get(message.id)?.resolve(message.run, message.regions);
  else sources.get(message.id)?.reject();
});
