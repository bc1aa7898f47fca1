import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { BATCH_PAGES, PAGE_BYTES, type PageSource } from '../../src/page-stream.js';
import { StoreContext } from '../../src/store/context.js';
import { Index } from '../../src/store/index/index-database.js';
import { Save } from '../../src/store/save/save.js';
import type { SaveResult } from '../../src/store/types.js';
import {
  basedOn,
  dropScratch,
  load,
  MemorySource,
  machineMetadata,
  newStore,
  noise,
  save,
  textPages,
} from './scratch.js';

const sumOf = ({ zeroPages, unchangedPages, newChunks, reusedChunks }: SaveResult): number =>
  zeroPages + unchangedPages + newChunks + reusedChunks;

describe('a save', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('keeps all regions, the state and the metadata', async function () {
    const { store } = newStore(this);
    const contents = {
      'ram@0x0': Buffer.concat([textPages(1, 700), Buffer.alloc(600 * PAGE_BYTES), noise(2, 333)]),
      'ram@0x100000000': Buffer.concat([Buffer.alloc(5 << 20), noise(3, 1)]),
      empty: Buffer.alloc(0),
      zero: Buffer.alloc(PAGE_BYTES),
    };
    const result = await save(store, contents, { tag: 'first' });
    assert.deepEqual(await load(store, 'first'), contents);
    assert.equal(result.pages, 700 + 600 + 333 + 1280 + 1 + 1);
    assert.equal(result.zeroPages, 600 + 1280 + 1);
    assert.equal(result.newChunks, 1034);
    assert.equal(sumOf(result), result.pages);
    const snapshot = await store.openSnapshot('first');
    assert.deepEqual(Buffer.from(snapshot.metadata.state), Buffer.from('registers'));
    assert.deepEqual(
      { ...snapshot.metadata, state: null },
      { ...machineMetadata({ tags: ['first'] }), state: null },
    );
    assert.equal(snapshot.summary.id, result.id);
    snapshot.close();
  });

  it('stores equal pages once, within a save and between saves and regions', async function () {
    const { store } = newStore(this);
    const page = noise(9, 1);
    const ram = Buffer.concat([...Array.from({ length: 100 }, () => page), textPages(1, 2000)]);
    const first = await save(store, { 'ram@0x0': ram });
    assert.equal(first.newChunks, 2001);
    assert.equal(first.reusedChunks, 99);
    ram.set(noise(11, 4), 40 * PAGE_BYTES);
    const second = await save(store, { disk: ram });
    assert.equal(second.newChunks, 4);
    assert.equal(second.reusedChunks, 2096);
    assert.equal(second.unchangedPages, 0);
    assert.deepEqual(await load(store, second.id), { disk: ram });
  });

  it('stores less than a fiftieth of the first when little has changed, with a parent or without', async function () {
    const { store } = newStore(this);
    const ram = Buffer.concat([noise(1, 3000), textPages(2, 3000), Buffer.alloc(8 << 20)]);
    const first = await save(store, { 'ram@0x0': ram });
    ram.set(noise(3, 5), 1234 * PAGE_BYTES);
    const full = await save(store, { 'ram@0x0': ram });
    assert.ok(full.storedBytes < first.storedBytes / 50, `${full.storedBytes} of ${first.storedBytes}`);
    ram.set(noise(4, 1), 3333 * PAGE_BYTES);
    const child = await save(
      store,
      { 'ram@0x0': ram },
      { parent: full.id, only: { 'ram@0x0': [3333, 3334, 8047] } },
    );
    assert.ok(child.storedBytes < first.storedBytes / 50);
    assert.deepEqual([child.newChunks, child.reusedChunks, child.unchangedPages], [1, 0, 5999]);
    assert.equal(sumOf(child), child.pages);
    assert.equal(child.parent, full.id);
    assert.deepEqual(await load(store, child.id), { 'ram@0x0': ram });
  });

  it('inherits pages from its parent, also when the ancestors are removed', async function () {
    const { store } = newStore(this);
    const ram = noise(1, 1500);
    let parent = (await save(store, { 'ram@0x0': ram })).id;
    for (let i = 0; i < 5; i++) {
      const page = (i * 333) % 1500;
      ram.set(i === 3 ? Buffer.alloc(PAGE_BYTES) : noise(100 + i, 1), page * PAGE_BYTES);
      const child = await save(store, { 'ram@0x0': ram }, { parent, only: { 'ram@0x0': [page] } });
      store.remove([parent]);
      await store.gc({ dryRun: false });
      parent = child.id;
      assert.deepEqual(await load(store, parent), { 'ram@0x0': ram });
    }
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('keeps the last copy of a page that the source gives several times', async function () {
    const { store } = newStore(this);
    const ram = noise(1, 600);
    const parent = (await save(store, { 'ram@0x0': ram })).id;
    const session = await store.beginSave({ regions: basedOn(parent) });
    for (let round = 0; round < 4; round++) {
      ram.set(noise(50 + round, 1), 7 * PAGE_BYTES);
      if (round === 2) ram.fill(0, 8 * PAGE_BYTES, 9 * PAGE_BYTES);
      if (round === 3) ram.set(noise(1, 600).subarray(9 * PAGE_BYTES, 10 * PAGE_BYTES), 8 * PAGE_BYTES);
      await session.store(new MemorySource({ 'ram@0x0': ram }, { 'ram@0x0': [7, 8] }));
    }
    const result = await session.commit(machineMetadata());
    assert.deepEqual(await load(store, result.id), { 'ram@0x0': ram });
    assert.deepEqual([result.newChunks, result.reusedChunks, result.unchangedPages], [1, 1, 598]);
  });

  it('has stored every earlier run before it asks for the one after a run without pages', async function () {
    const { store } = newStore(this);
    const ram = noise(3, 3 * BATCH_PAGES);
    let storedBytes = 0;
    let given = 0;
    const session = await store.beginSave({ regions: [] });
    const source: PageSource = {
      regions: [{ name: 'ram@0x0', sizeBytes: ram.length }],
      async next(into) {
        if (given === 4) {
          assert.equal(storedBytes, ram.length, 'no batch is in flight');
          return null;
        }
        const first = given++ * BATCH_PAGES;
        if (given === 4) return { region: 0, pages: new Uint32Array(0) };
        into.set(ram.subarray(first * PAGE_BYTES, (first + BATCH_PAGES) * PAGE_BYTES));
        return { region: 0, pages: Uint32Array.from({ length: BATCH_PAGES }, (_, i) => first + i) };
      },
    };
    await session.store(source, (doneBytes) => {
      storedBytes = doneBytes;
    });
    const { id } = await session.commit(machineMetadata());
    assert.deepEqual(await load(store, id), { 'ram@0x0': ram });
  });

  it('is full if its parent does not exist or was removed', async function () {
    const { store } = newStore(this);
    const session = await store.beginSave({ regions: basedOn('0'.repeat(32)) });
    assert.equal(session.parent, null);
    await session.abort();
    const { id } = await save(store, { 'ram@0x0': noise(1, 3) });
    store.remove([id]);
    const second = await store.beginSave({ regions: basedOn(id) });
    assert.equal(second.parent, null);
    await second.abort();
  });

  it('follows regions that grow, shrink, appear or disappear', async function () {
    const { store } = newStore(this);
    const big = noise(1, 1100);
    const first = await save(store, { disk: big, other: noise(2, 3) });
    const small = big.subarray(0, 700 * PAGE_BYTES);
    const second = await save(store, { disk: small }, { parent: first.id, only: {} });
    assert.deepEqual(await load(store, second.id), { disk: small });
    // Growing again does not bring back the old pages.
    const grown = Buffer.concat([small, Buffer.alloc(400 * PAGE_BYTES)]);
    const third = await save(
      store,
      { disk: grown, fresh: noise(3, 2) },
      { parent: second.id, only: { fresh: [0, 1] } },
    );
    assert.deepEqual(await load(store, third.id), { disk: grown, fresh: noise(3, 2) });
    assert.equal(third.unchangedPages, 700);
  });

  it('leaves no files when it is aborted, or when its source fails', async function () {
    const { store, dir } = newStore(this);
    const kept = await save(store, { 'ram@0x0': noise(1, 10) });
    const files = (): string[] =>
      ['packs', 'snapshots', 'tags'].flatMap((folder) => readdirSync(join(dir, folder)));
    const before = files();

    const given = await store.beginSave({ regions: basedOn(kept.id) });
    await given.store(new MemorySource({ 'ram@0x0': noise(2, 2000) }));
    assert.ok(files().length > before.length);
    await given.abort();
    await given.abort();
    assert.deepEqual(files(), before);
    await assert.rejects(given.commit(machineMetadata()), { code: 'NOT_POSSIBLE_NOW' });

    const failing = await store.beginSave({ regions: [] });
    const inner = new MemorySource({ 'ram@0x0': noise(3, 2000) });
    let calls = 0;
    const source: PageSource = {
      regions: inner.regions,
      next: (into) => (++calls > 4 ? Promise.reject(new Error('the machine is gone')) : inner.next(into)),
    };
    await assert.rejects(failing.store(source), /the machine is gone/);
    await assert.rejects(failing.commit(machineMetadata()), { code: 'NOT_POSSIBLE_NOW' });
    await failing.abort();
    assert.deepEqual(files(), before);
    assert.equal(store.list().length, 1);
    assert.equal((await store.gc({ dryRun: true })).freedBytes, 0);
  });

  it('stores pages again if it cannot open more packs', async function () {
    const { store, dir } = newStore(this);
    const packs = 120;
    for (let i = 0; i < packs; i++) await save(store, { x: noise(1000 + i, 1) });
    const scratch = JSON.stringify(new URL('./scratch.js', import.meta.url));
    const stores = JSON.stringify(new URL('../../src/store/store.js', import.meta.url));
    const script = `(async () => {
      const { MemorySource, machineMetadata, noise } = await import(${scratch});
      const { Store } = await import(${stores});
      const store = Store.open(process.argv[1], { write: true });
      const pages = Array.from({ length: ${packs} }, (_, i) => noise(1000 + i, 1));
      const session = await store.beginSave({ regions: [] });
      await session.store(new MemorySource({ x: Buffer.concat(pages) }));
      const { id, reusedChunks } = await session.commit(machineMetadata({ tags: ['all'] }));
      const snapshot = await store.openSnapshot(id);
      await snapshot.fill({ regions: snapshot.regions, write: () => {} });
      snapshot.close();
      store.close();
      console.log(reusedChunks);
    })();`;
    const child = spawnSync(
      'sh',
      ['-c', 'ulimit -n 100 && exec "$0" "$@"', process.execPath, '-e', script, dir],
      { encoding: 'utf8' },
    );
    assert.equal(child.status, 0, child.stderr);
    const reused = Number(child.stdout);
    assert.ok(reused >= 20 && reused < packs, `${reused} of ${packs} chunks were reused`);
    const [all] = Object.values(await load(store, 'all'));
    assert.deepEqual(all, Buffer.concat(Array.from({ length: packs }, (_, i) => noise(1000 + i, 1))));
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('refuses an invalid tag before it begins', async function () {
    const { store } = newStore(this);
    for (const tag of ['a/b', '', '..', 'a'.repeat(65), '0'.repeat(32)])
      await assert.rejects(store.beginSave({ regions: [], tags: ['good', tag] }), { code: 'USAGE' });
  });

  it('refuses bad regions and bad batches', async function () {
    const { store } = newStore(this);
    const attempt = async (regions: PageSource['regions'], pages: number[]): Promise<void> => {
      const session = await store.beginSave({ regions: [] });
      let given = false;
      try {
        await session.store({
          regions,
          next: async () => {
            if (given) return null;
            given = true;
            return { region: 0, pages: Uint32Array.from(pages) };
          },
        });
        await session.commit(machineMetadata());
      } finally {
        await session.abort();
      }
    };
    await assert.rejects(attempt([{ name: '../x', sizeBytes: 4096 }], [0]), RangeError);
    await assert.rejects(attempt([{ name: 'a', sizeBytes: -1 }], [0]), RangeError);
    await assert.rejects(
      attempt(
        [
          { name: 'a', sizeBytes: 4096 },
          { name: 'a', sizeBytes: 1 },
        ],
        [0],
      ),
      RangeError,
    );
    await assert.rejects(attempt([{ name: 'a', sizeBytes: 4096 }], [1]), RangeError);
    await assert.rejects(attempt([], [0]), RangeError);
    await assert.rejects(
      attempt(
        [{ name: 'a', sizeBytes: 4096 }],
        Array.from({ length: 257 }, () => 0),
      ),
      RangeError,
    );
    assert.equal(store.list().length, 0);
  });

  it('refuses a description that is longer or nested deeper than the format allows', async function () {
    const { store } = newStore(this);
    const described = async (machine: unknown): Promise<unknown> => {
      const session = await store.beginSave({ regions: [] });
      try {
        const { id } = await session.commit(machineMetadata({ machine }));
        const snapshot = await store.openSnapshot(id);
        snapshot.close();
        return snapshot.metadata.machine;
      } finally {
        await session.abort();
      }
    };
    const nested = (depth: number): unknown => JSON.parse('['.repeat(depth) + ']'.repeat(depth));
    const long = 'é'.repeat(500_000);
    for (const machine of [long, nested(63)]) assert.deepEqual(await described(machine), machine);
    for (const machine of [long + long, nested(64)]) await assert.rejects(described(machine), RangeError);
    assert.equal(store.list().length, 2);
  });

  it('reuses the batches of earlier saves and restores, also of failed ones', async function () {
    const { store } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 20) };
    const { id } = await save(store, contents);
    await load(store, id);
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    for (let round = 0; round < 60; round++) {
      await save(store, contents);
      await load(store, id);
      const snapshot = await store.openSnapshot(id);
      const write = () => assert.fail('no room');
      await assert.rejects(snapshot.fill({ regions: snapshot.regions, write }), /no room/);
      snapshot.close();
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    // A save has four batches of 1 MiB.
    assert.ok(most < 40 << 20, `${most >> 20} MiB`);
  });

  describe('with more chunks than it keeps in memory', () => {
    const part = 400;
    /** New pages, more new pages, and the first ones again. */
    const once = noise(11, 1500);
    const pages = Buffer.concat([once, noise(12, 700), once]);

    async function begin(dir: string, work: (save: Save, context: StoreContext) => Promise<void>) {
      const context = new StoreContext(dir, true, Index.open(dir, true), pageOps, 64);
      try {
        const session = await Save.begin(context, [], part);
        await session.store(new MemorySource({ 'ram@0x0': pages }));
        await work(session, context);
      } finally {
        context.close();
      }
    }

    it('commits packs early, which gc keeps, and finds their chunks', async function () {
      const { store, dir } = newStore(this);
      await begin(dir, async (session, context) => {
        assert.ok(context.index.packs().length >= 2);
        assert.equal((await store.gc({ dryRun: false })).removedChunks, 0);
        const result = await session.commit(machineMetadata());
        assert.deepEqual([result.newChunks, result.reusedChunks], [2200, 1500]);
        const packs = readdirSync(join(dir, 'packs')).map((name) => statSync(join(dir, 'packs', name)).size);
        const { size } = statSync(join(dir, 'snapshots', result.id));
        assert.equal(
          result.storedBytes,
          packs.reduce((total, bytes) => total + bytes, size),
        );
        assert.deepEqual((await load(store, result.id))['ram@0x0'], pages);
        assert.equal((await save(store, { 'ram@0x0': pages.subarray(0, 1000 * PAGE_BYTES) })).newChunks, 0);
      });
      await store.gc({ dryRun: false });
      assert.deepEqual((await store.check({ readData: true })).problems, []);
    });

    it('deletes those packs when it is aborted, and keeps them when it is suspended', async function () {
      const { store, dir } = newStore(this);
      const files = () => ['packs', 'segments'].map((folder) => readdirSync(join(dir, folder)).length);
      await begin(dir, async (session, context) => {
        await session.abort();
        assert.deepEqual([context.index.packs(), context.index.segments()], [[], []]);
      });
      assert.deepEqual(files(), [0, 0]);
      await begin(dir, (session) => session.suspend());
      assert.ok(files().every((count) => count >= 2));
      assert.deepEqual((await store.check({ readData: true })).problems, []);
      await store.gc({ dryRun: false });
      assert.deepEqual(files(), [0, 0]);
    });
  });

  it('runs beside other saves to the same store', async function () {
    const { store } = newStore(this);
    const contents = Array.from({ length: 4 }, (_, i) => ({
      'ram@0x0': Buffer.concat([noise(i, 700), textPages(9, 300)]),
    }));
    const results = await Promise.all(contents.map((ram) => save(store, ram)));
    for (const [i, { id }] of results.entries()) assert.deepEqual(await load(store, id), contents[i]);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });
});
