/** When data was verified, and how long saves paused their machines. Lists show both, so both are in the index. */
import assert from 'node:assert/strict';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { makeIndexOlder } from './older-index.js';
import {
  basedOn,
  dropScratch,
  flipBit,
  MemorySource,
  machineMetadata,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
} from './scratch.js';

const silent = { onPlan: () => {}, progress: () => {} };

async function savePaused(store: Store, vm: string, machine: unknown): Promise<string> {
  const session = await store.beginSave({ regions: basedOn(null, ['x']) });
  await session.store(new MemorySource({ x: noise(vm.length, 1) }));
  return (await session.commit(machineMetadata({ vm, machine }))).id;
}

const pauses = (store: Store): Record<string, number | null> =>
  Object.fromEntries(store.list().map(({ vm, pauseMs }) => [String(vm), pauseMs]));

describe('the pause of a save', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is listed, and null for a file or where it is not valid', async function () {
    const { store, dir } = newStore(this);
    await savePaused(store, 'a', { pauseMs: 2.375 });
    await savePaused(store, 'whole', { pauseMs: 3 });
    await savePaused(store, 'none', {});
    await savePaused(store, 'negative', { pauseMs: -1 });
    await savePaused(store, 'text', { pauseMs: '3' });
    await store.put(join(dir, 'lock'), { tags: [], name: 'file' });
    assert.deepEqual(pauses(store), {
      ...{ a: 2.375, whole: 3, none: null, negative: null, text: null, file: null },
    });
    assert.deepEqual(await store.check({ readData: false }), { ok: true, problems: [] });
  });

  it('is copied, and found again by repair', async function () {
    const { store, dir } = newStore(this);
    const id = await savePaused(store, 'a', { pauseMs: 2.375 });
    store.close();
    const other = join(scratchDir(this), 'other');
    await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: other, refs: [id] });
    writeFileSync(join(dir, 'store.db'), 'lost');
    await Store.repair(dir);
    for (const each of [other, dir]) {
      const opened = Store.open(each, { write: false });
      onDrop(this, () => opened.close());
      assert.deepEqual(pauses(opened), { a: 2.375 });
      assert.deepEqual(await opened.check({ readData: false }), { ok: true, problems: [] });
    }
  });

  it('that differs from that in the file is damage', async function () {
    const { store, dir } = newStore(this);
    const id = await savePaused(store, 'a', { pauseMs: 2.375 });
    const database = new Database(join(dir, 'store.db'));
    database.exec('UPDATE snapshots SET pauseMs = 1');
    database.close();
    const { problems } = await store.check({ readData: false });
    assert.deepEqual(
      problems.map(({ message }) => message),
      [`the row of snapshot ${id} differs from its file`],
    );
  });

  it('is null in an index from before there were pauses, which is migrated by the first writer', async function () {
    const { store, dir } = newStore(this);
    await savePaused(store, 'a', {});
    await store.check({ readData: true });
    store.close();
    makeIndexOlder(dir, 4);
    const reader = Store.open(dir, { write: false });
    assert.deepEqual(pauses(reader), { a: null });
    const { verifiedAt, verifiedBytes, packBytes } = reader.stats();
    assert.deepEqual([verifiedAt, verifiedBytes], [null, 0]);
    assert(packBytes > 0);
    assert.equal(reader.show(reader.list()[0]!.id).verifiedAt, null);
    assert.deepEqual(await reader.check({ readData: true }), { ok: true, problems: [] });
    reader.close();
    const writer = Store.open(dir, { write: true });
    onDrop(this, () => writer.close());
    await savePaused(writer, 'b', { pauseMs: 7 });
    assert.deepEqual(pauses(writer), { a: null, b: 7 });
    assert.deepEqual(await writer.check({ readData: true }), { ok: true, problems: [] });
    assert.equal(writer.stats().verifiedBytes, writer.stats().packBytes);
  });
});

describe('what check has verified', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is each pack that it has read, and the snapshots that need no other', async function () {
    const { store } = newStore(this);
    const a = await save(store, { 'ram@0x0': noise(1, 40) });
    assert.deepEqual([store.stats().verifiedBytes, store.stats().verifiedAt], [0, null]);
    await store.check({ readData: false });
    assert.equal(store.show(a.id).verifiedAt, null, 'the structure alone is not the data');

    const before = new Date().toISOString();
    await store.check({ readData: true });
    const { verifiedBytes, packBytes, verifiedAt } = store.stats();
    assert.equal(verifiedBytes, packBytes);
    assert(verifiedAt !== null && verifiedAt >= before && verifiedAt <= new Date().toISOString());
    assert.equal(store.show(a.id).verifiedAt, verifiedAt);

    const b = await save(store, { 'ram@0x0': noise(2, 40) });
    assert.equal(store.show(b.id).verifiedAt, null);
    assert.equal(store.show(a.id).verifiedAt, verifiedAt);
    assert.equal(store.stats().verifiedBytes, verifiedBytes);
    await store.check({ readData: { part: 1, of: 2 } });
    assert.equal(store.stats().verifiedBytes, store.stats().packBytes, 'the unread half is read first');
    assert.equal(store.stats().verifiedAt, verifiedAt, 'the oldest part counts');
  });

  it('is not a pack with damage, also when it was sound before', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, { 'ram@0x0': noise(1, 40) });
    const [pack] = readdirSync(join(dir, 'packs')) as [string];
    await save(store, { 'ram@0x0': noise(2, 40) });
    await store.check({ readData: true });
    flipBit(join(dir, 'packs', pack), 100);
    assert.equal((await store.check({ readData: true })).ok, false);
    const { verifiedBytes, packBytes } = store.stats();
    assert(verifiedBytes > 0 && verifiedBytes < packBytes);
    assert.equal(store.show(a.id).verifiedAt, null);
  });
});
