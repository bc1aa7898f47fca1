/** Labels of machines in the index: where they come from, and what an index of an earlier livesnap does without them. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { Store } from '../../src/store/store.js';
import { copyOfGolden, filesOf, goldenSnapshots } from '../fixtures/golden-stores.js';
import { Database } from '../sqlite.js';
import { makeIndexOlder } from './older-index.js';
import {
  basedOn,
  dropScratch,
  MemorySource,
  machineMetadata,
  mountReadOnly,
  newStore,
  noise,
  onDrop,
  scratchDir,
} from './scratch.js';

const silent = { onPlan: () => {}, progress: () => {} };

async function saveMachine(store: Store, vm: string, machine: unknown, kind: 'machine' | 'disk' = 'machine') {
  const session = await store.beginSave({ regions: basedOn(null, ['x']) });
  await session.store(new MemorySource({ x: noise(vm.length, 1) }));
  const state = kind === 'disk' ? new Uint8Array(0) : Buffer.from('registers');
  return (await session.commit(machineMetadata({ vm, machine, kind, state }))).id;
}

/** The labels of all snapshots, by name. */
const labelsOf = (store: Store): Record<string, unknown> =>
  Object.fromEntries(store.list().map(({ vm, labels }) => [vm, labels]));

/** As the column has them. */
function columnOf(dir: string): unknown[] {
  const database = new Database(join(dir, 'store.db'), { readonly: true });
  try {
    return database.prepare('SELECT labels FROM snapshots ORDER BY createdAt').pluck().all();
  } finally {
    database.close();
  }
}

async function requireSound(store: Store): Promise<void> {
  assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
}

describe('the labels of a snapshot', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('are those of the machine, also of its disks, and none of a file or where they are not valid', async function () {
    const { store, dir } = newStore(this);
    const id = await saveMachine(store, 'a', { labels: { b: '2', a: '1' } });
    await saveMachine(store, 'disks', { labels: { course: 'os' } }, 'disk');
    await saveMachine(store, 'list', { labels: ['course'] });
    await saveMachine(store, 'number', { labels: { course: 1 } });
    await saveMachine(store, 'nothing', null);
    await store.put(join(dir, 'lock'), { tags: [], name: 'file' });
    assert.deepEqual(labelsOf(store), {
      ...{ a: { a: '1', b: '2' }, disks: { course: 'os' }, list: {}, number: {}, nothing: {}, file: {} },
    });
    assert.deepEqual(Object.keys(store.find(id).labels), ['a', 'b']);
    await requireSound(store);
  });

  it('are copied, and found again by repair', async function () {
    const { store, dir } = newStore(this);
    const id = await saveMachine(store, 'a', { labels: { course: 'os' } });
    store.close();
    const other = join(scratchDir(this), 'other');
    await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: other, refs: [id] });
    for (const each of [other, dir]) {
      if (each === dir) writeFileSync(join(dir, 'store.db'), 'lost');
      if (each === dir) await Store.repair(dir);
      const opened = Store.open(each, { write: false });
      onDrop(this, () => opened.close());
      assert.deepEqual(labelsOf(opened), { a: { course: 'os' } });
      assert.deepEqual(columnOf(each), ['{"course":"os"}']);
      await requireSound(opened);
    }
  });

  it('that differ from those in the file are damage', async function () {
    const { store, dir } = newStore(this);
    const id = await saveMachine(store, 'a', { labels: { course: 'os' } });
    const database = new Database(join(dir, 'store.db'));
    database.exec(`UPDATE snapshots SET labels = '{"course":"net"}'`);
    database.close();
    const { problems } = await store.check({ readData: false });
    assert.deepEqual(
      problems.map(({ message }) => message),
      [`the row of snapshot ${id} differs from its file`],
    );
  });
});

describe('an index without labels', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const expected = Object.fromEntries(
    goldenSnapshots('v1/labels').map(({ vm, machine }) => [
      vm,
      (machine as { labels?: object } | null)?.labels ?? {},
    ]),
  );

  for (const version of [2, 3])
    it(`is read as it is, with labels from the files, and filled by the upkeep after a save (version ${version})`, async function () {
      const dir = copyOfGolden(this, 'v1/labels');
      makeIndexOlder(dir, version);
      const before = filesOf(dir);
      const reader = Store.open(dir, { write: false });
      assert.deepEqual(labelsOf(reader), expected);
      await requireSound(reader);
      reader.close();
      const after = filesOf(dir);
      for (const files of [before, after]) for (const name of ['store.db', 'reserve']) delete files[name];
      assert.deepEqual(after, before);
      const writer = Store.open(dir, { write: true });
      onDrop(this, () => writer.close());
      assert.deepEqual(columnOf(dir), [null, null, null, '{}']);
      assert.deepEqual(labelsOf(writer), expected);
      await requireSound(writer);
      assert.equal(await writer.tidy(), null);
      assert.deepEqual(
        columnOf(dir).map((json) => JSON.parse(json as string)),
        Object.values(expected),
      );
      await requireSound(writer);
    });

  it('is read where it cannot be written', async function () {
    const dir = copyOfGolden(this, 'v1/labels');
    makeIndexOlder(dir, 3);
    mountReadOnly(this, dir);
    const reader = Store.open(dir, { write: false });
    onDrop(this, () => reader.close());
    assert.deepEqual(labelsOf(reader), expected);
  });

  it('lists a damaged snapshot without labels, and keeps them unknown', async function () {
    const dir = copyOfGolden(this, 'v1/labels');
    makeIndexOlder(dir, 3);
    const { id, vm } = goldenSnapshots('v1/labels')[0]!;
    const path = join(dir, 'snapshots', id);
    const whole = readFileSync(path);
    writeFileSync(path, whole.subarray(0, 100));
    const store = Store.open(dir, { write: true });
    onDrop(this, () => store.close());
    assert.equal(await store.tidy(), null);
    assert.deepEqual(labelsOf(store), { ...expected, [vm!]: {} });
    writeFileSync(path, whole);
    assert.deepEqual(labelsOf(store), expected);
    assert.equal(await store.tidy(), null);
    assert.ok(!columnOf(dir).includes(null));
  });
});
