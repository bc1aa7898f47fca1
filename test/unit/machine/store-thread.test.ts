import assert from 'node:assert/strict';
import { openSync, readdirSync, readFileSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { LivesnapError } from '../../../src/errors.js';
import { type StoreProxy, StoreThread } from '../../../src/machine/store-thread-client.js';
import { tryLock } from '../../../src/native/locks.js';
import { closeMemory, createMemory, readMemory } from '../../../src/native/memory.js';
import { readRegion } from '../../../src/native/region-reader.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource } from '../../../src/page-stream.js';
import { Store } from '../../../src/store/store.js';
import {
  basedOn,
  dropScratch,
  load,
  MemorySource,
  machineMetadata,
  noise,
  scratchDir,
} from '../../store/scratch.js';

const hasCode = (code: string) => (error: unknown) => error instanceof LivesnapError && error.code === code;

describe('the store thread', () => {
  let dir: string;
  let threads: StoreThread[];
  let logged: string[];

  beforeEach(function () {
    dir = join(scratchDir(this), 'store');
    threads = [];
    logged = [];
  });
  afterEach(async function () {
    for (const thread of threads) await thread.end();
    dropScratch(this);
  });

  function newThread(url?: URL, restMs?: number): StoreThread {
    const thread = new StoreThread({
      log: (sentence) => logged.push(sentence),
      ...(url ? { url } : {}),
      ...(restMs === undefined ? {} : { restMs }),
    });
    threads.push(thread);
    return thread;
  }
  const dying = (): StoreThread => newThread(new URL('./dying-store-thread.js', import.meta.url));

  const openToWrite = (thread: StoreThread): Promise<StoreProxy> =>
    thread.open(dir, { write: true, create: true });

  async function save(store: StoreProxy, source: PageSource, parent: string | null = null) {
    const session = await store.beginSave({
      regions: basedOn(
        parent,
        source.regions.map(({ name }) => name),
      ),
    });
    try {
      await session.store(source);
      return await session.commit(machineMetadata({ tags: ['a', 'b'] }));
    } catch (error) {
      await session.abort();
      throw error;
    }
  }

  const packs = (): string[] => readdirSync(join(dir, 'packs'));

  it('keeps the page Worker from save to save, and no file of a store that was closed', async () => {
    // Those of the page pool come and go with their work.
    const isOfPool = (id: string): boolean => {
      try {
        return readFileSync(`/proc/self/task/${id}/comm`, 'latin1') === 'page pool\n';
      } catch {
        return true; // it has ended
      }
    };
    const threadIds = (): string[] => readdirSync('/proc/self/task').filter((id) => !isOfPool(id));
    const mapped = (): boolean => readFileSync('/proc/self/maps', 'latin1').includes(`${realpathSync(dir)}/`);
    const thread = newThread();
    const saveAlone = async (seed: number): Promise<string[]> => {
      const store = await openToWrite(thread);
      await save(store, new MemorySource({ 'ram@0x0': noise(seed, BATCH_PAGES) }));
      const during = threadIds();
      assert.equal(await store.tidy(), null);
      await store.close();
      return during;
    };
    const first = await saveAlone(1);
    for (const seed of [2, 3]) {
      const later = await saveAlone(seed);
      assert.deepEqual(
        later.filter((id) => !first.includes(id)),
        [],
        'a later save starts no thread',
      );
    }
    while (mapped()) await sleep(5);
  });

  it('ends when nothing has been open for a while, and starts again when a store is opened', async () => {
    const threadCount = (): number => readdirSync('/proc/self/task').length;
    const before = threadCount();
    const thread = newThread(undefined, 1);
    const ids: string[] = [];
    for (const seed of [1, 2]) {
      const store = await openToWrite(thread);
      ids.push((await save(store, new MemorySource({ 'ram@0x0': noise(seed, 3) }))).id);
      const snapshot = await store.openSnapshot(ids[0]!);
      const region = await snapshot.openRegion('ram@0x0');
      await store.close();
      snapshot.close();
      snapshot.close();
      await sleep(20); // the region is still open
      const read = Buffer.alloc(PAGE_BYTES);
      readRegion(region.reader, 0, read);
      assert.ok(read.equals(noise(1, 1)));
      region.close();
      while (threadCount() > before) await sleep(5);
    }
    assert.deepEqual(logged, []);
  });

  it('saves a source of more batches than are in flight', async () => {
    const ram = noise(1, 20 * BATCH_PAGES + 3);
    const store = await openToWrite(newThread());
    const first = await save(store, new MemorySource({ ram, other: noise(2, 1) }));
    assert.deepEqual([first.tags, first.parent, first.newChunks > 0], [['a', 'b'], null, true]);
    noise(3, 2).copy(ram, 7 * PAGE_BYTES);
    const session = await store.beginSave({ regions: basedOn(first.id, ['ram', 'other']) });
    assert.deepEqual([session.parent, session.bases], [first.id, [0, 0]]);
    const seen: number[] = [];
    await session.store(new MemorySource({ ram, other: noise(2, 1) }, { ram: [7, 8] }), (done) =>
      seen.push(done),
    );
    const second = await session.commit(machineMetadata());
    assert.equal(second.parent, first.id);
    assert.ok(seen.length > 0);
    assert.equal(await store.tidy(), null);
    await store.close();
    const direct = Store.open(dir, { write: false });
    try {
      assert.deepEqual(await load(direct, second.id), { ram, other: noise(2, 1) });
    } finally {
      direct.close();
    }
  });

  it('fills guest memory from a snapshot and returns its state', async () => {
    const ram = noise(4, 3 * BATCH_PAGES);
    const store = await openToWrite(newThread());
    const { id } = await save(store, new MemorySource({ ram }));
    const snapshot = await store.openSnapshot('a');
    assert.equal(snapshot.summary.id, id);
    assert.deepEqual(Buffer.from(snapshot.metadata.state), Buffer.from('registers'));
    const memory = createMemory(ram.length);
    try {
      const { regions } = snapshot;
      const seen: unknown[] = [];
      const write = () => assert.fail('no page crosses a thread');
      await snapshot.fill({ regions, memories: [memory], write }, (_, total) => seen.push(total));
      assert.equal(seen[0], ram.length);
      const found = Buffer.alloc(ram.length);
      readMemory(memory, 0, found);
      assert.deepEqual(found, ram);
      await assert.rejects(snapshot.fill({ regions, write }), TypeError);
    } finally {
      closeMemory(memory);
      snapshot.close();
      await store.close();
    }
  });

  it('opens a region that the main thread reads, beside gc, after the snapshot and the store are closed', async () => {
    const disk0 = noise(5, 600);
    const thread = newThread();
    const store = await openToWrite(thread);
    assert.equal(store.key, realpathSync(dir));
    const { id } = await save(store, new MemorySource({ ram: noise(4, 3), disk0 }));
    const snapshot = await store.openSnapshot(id);
    const region = await snapshot.openRegion('disk0');
    await assert.rejects(snapshot.openRegion('disk9'), hasCode('NO_SUCH_REGION'));
    snapshot.close();
    await store.close();
    const direct = Store.open(dir, { write: true });
    direct.remove([id]);
    await direct.gc({ dryRun: false });
    assert.equal(region.sizeBytes, disk0.length);
    const found = Buffer.alloc(disk0.length);
    assert.equal(readRegion(region.reader, 0, found), 0);
    assert.ok(found.equals(disk0));
    // It is still the base of a save, though removed.
    const again = await openToWrite(thread);
    const session = await again.beginSave({
      regions: [{ region: 'x', bases: [{ snapshot: id, region: 'disk0' }] }],
    });
    assert.deepEqual([session.bases, session.parent], [[0], id]);
    await session.store({ ...new MemorySource({ x: disk0 }, {}), sequential: [0], next: async () => null });
    const saved = await session.commit(machineMetadata());
    assert.equal(saved.unchangedPages, 600);
    region.close();
    await again.close();
    assert.deepEqual(await load(direct, saved.id), { x: disk0 });
    direct.close();
  });

  it('fails with the code, message and hint of the store', async () => {
    const thread = newThread();
    writeFileSync(join(dir, '..', 'file'), '');
    const expected = (() => {
      try {
        return Store.open(join(dir, '..', 'file'), { write: true }).dir;
      } catch (error) {
        return (error as LivesnapError).toJSON();
      }
    })();
    await assert.rejects(thread.open(join(dir, '..', 'file'), { write: true }), (error: LivesnapError) => {
      assert.deepEqual(error.toJSON(), expected);
      return true;
    });
    const store = await openToWrite(thread);
    await assert.rejects(store.openSnapshot('nope'), hasCode('NO_SUCH_SNAPSHOT'));
    await assert.rejects(store.beginSave({ regions: [], tags: ['a b'] }), hasCode('USAGE'));
    const bad = await store.beginSave({ regions: [] });
    await assert.rejects(bad.store(new MemorySource({ 'not a NAME': noise(1, 1) })), (error: Error) => {
      assert.match(error.stack!, /src\/store\/save\//, 'the stack is that of the store thread');
      return error.message === 'the regions have bad names or sizes';
    });
    await bad.abort();
    await store.close();
  });

  it('fails with the error of the source, and leaves nothing behind', async () => {
    const store = await openToWrite(newThread());
    const failure = new LivesnapError('MACHINE_GONE', 'the machine has ended');
    const inner = new MemorySource({ ram: noise(5, 6 * BATCH_PAGES) });
    let left = 4;
    const source: PageSource = {
      regions: inner.regions,
      next: (into) => (left-- > 0 ? inner.next(into) : Promise.reject(failure)),
    };
    await assert.rejects(save(store, source), (error) => error === failure);
    assert.deepEqual(packs(), []);
    await save(store, new MemorySource({ ram: noise(5, 6) }));
    await store.close();
  });

  it('aborts a save', async () => {
    const store = await openToWrite(newThread());
    const session = await store.beginSave({ regions: [] });
    await session.store(new MemorySource({ ram: noise(6, 2 * BATCH_PAGES) }));
    assert.equal(packs().length, 1);
    await session.abort();
    assert.deepEqual(packs(), []);
    await assert.rejects(session.commit(machineMetadata()));
    await store.close();
  });

  for (const [how, why] of [
    ['ends', 'it ended with status 3'],
    ['throws', 'a mistake in the store thread'],
  ] as const) {
    it(`fails a save when it ${how} during the save, and works again with the next store`, async () => {
      const thread = dying();
      const store = await openToWrite(thread);
      const inner = new MemorySource({ [how]: noise(7, 6 * BATCH_PAGES) });
      let working = 0;
      const source: PageSource = {
        regions: inner.regions,
        async next(into: Uint8Array): Promise<PageRun | null> {
          working++;
          const run = await inner.next(into);
          await sleep(100); // a thread that dies does not wait for this
          working--;
          return run;
        },
      };
      const session = await store.beginSave({ regions: [] });
      await assert.rejects(session.store(source), (error: LivesnapError) => {
        assert.equal(error.message, `the store thread of the machine's process failed: ${why}`);
        assert.equal(working, 0, 'the source is not at work any more');
        return error.code === 'SYSTEM';
      });
      assert.ok(logged[0]!.includes(why), logged.join());
      if (how === 'throws') assert.match(logged[0]!, /dying-store-thread/, 'with its stack');
      await session.abort();
      await assert.rejects(store.beginSave({ regions: [] }), hasCode('SYSTEM'));
      await store.close();
      const next = await openToWrite(thread);
      const { id } = await save(next, new MemorySource({ ram: noise(7, 3) }));
      assert.ok(id);
      await next.close();
    });
  }

  it('can cancel its waits for other processes, and does not block the main thread', async () => {
    const thread = newThread();
    const store = await openToWrite(thread);
    await (await store.beginSave({ regions: [] })).abort(); // makes the lock file
    const lock = openSync(join(dir, 'lock'), 'r');
    assert.ok(tryLock(lock, 'exclusive'));
    let over = false;
    const beginning = store.beginSave({ regions: [] }).finally(() => {
      over = true;
    });
    const refused = assert.rejects(beginning, hasCode('STORE_BUSY'));
    await thread.open(dir, { write: false });
    for (let i = 0; i < 10; i++) await nextTurn();
    assert.equal(over, false);
    thread.cancelWaits();
    await refused;
  });

  it('can be ended while it is blocked by a lock', async () => {
    const thread = newThread();
    await (await openToWrite(thread)).close();
    const lock = openSync(join(dir, 'index.lock'), 'r');
    assert.ok(tryLock(lock, 'exclusive'));
    const refused = assert.rejects(openToWrite(thread), hasCode('SYSTEM'));
    while (descriptorsOf(join(dir, 'index.lock')) < 2) await sleep(5);
    await thread.end();
    await refused;
  });
});

/** How many descriptors of this process lead to the file. */
function descriptorsOf(path: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;
}
