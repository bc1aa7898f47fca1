/** Tags of snapshots: a snapshot may have several, and a tag names one snapshot. */
import assert from 'node:assert/strict';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { localChannels, type Message } from '../../src/store/copy/channel.js';
import { MessageType } from '../../src/store/copy/protocol.js';
import { requestCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { copyOfGolden, goldenSnapshots } from '../fixtures/golden-stores.js';
import { Database } from '../sqlite.js';
import { makeIndexOlder } from './older-index.js';
import {
  dropScratch,
  load,
  mountReadOnly,
  mountSmall,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
} from './scratch.js';

const silent = { onPlan: () => {}, progress: () => {} };

const ram = (seed: number): Record<string, Buffer> => ({ 'ram@0x0': noise(seed, 3) });

/** The tags of all snapshots, oldest first. */
const tagsOf = (store: Store): (readonly string[])[] => store.list().map(({ tags }) => tags);

/** The files of tags/, with the IDs in them. */
const filesOf = (dir: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(join(dir, 'tags'))
      .sort()
      .map((label) => [label, readFileSync(join(dir, 'tags', label), 'latin1').trim()]),
  );

async function requireSound(store: Store): Promise<void> {
  assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
}

/** The columns that every version of the index has. */
const SNAPSHOT_COLUMNS =
  'id, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes, logicalBytes, nonZeroPages';

/** The version of the index, and its tags and snapshots. */
function indexOf(dir: string): { version: unknown; rows: unknown } {
  const database = new Database(join(dir, 'store.db'), { readonly: true });
  try {
    const rows = (sql: string): unknown => database.prepare(sql).all();
    return {
      version: database.pragma('user_version', { simple: true }),
      rows: [
        rows('SELECT * FROM tags ORDER BY label'),
        rows(`SELECT ${SNAPSHOT_COLUMNS} FROM snapshots ORDER BY id`),
      ],
    };
  } finally {
    database.close();
  }
}

const many = (count: number): string[] => Array.from({ length: count }, (_, i) => `t${i}`);

describe('the tags of a snapshot', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('are set by a save, sorted and each once, and move from other snapshots', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, ram(1), { tags: ['two', 'one', 'two'] });
    assert.deepEqual([a.tags, a.movedTags], [['one', 'two'], []]);
    const b = await save(store, ram(2), { tags: ['two', 'three'] });
    assert.deepEqual(b.tags, ['three', 'two']);
    assert.deepEqual(b.movedTags, [{ tag: 'two', from: a.id }]);
    const put = await store.put(join(dir, 'lock'), { tags: ['one', 'four'], name: null });
    assert.deepEqual([put.tags, put.movedTags], [['four', 'one'], [{ tag: 'one', from: a.id }]]);
    assert.deepEqual(tagsOf(store), [[], ['three', 'two'], ['four', 'one']]);
    assert.deepEqual(store.show('four').tags, ['four', 'one']);
    const snapshot = await store.openSnapshot(b.id);
    snapshot.close();
    assert.deepEqual(snapshot.metadata.tags, ['three', 'two']);
    assert.deepEqual(filesOf(dir), { four: put.id, one: put.id, three: b.id, two: b.id });
    await requireSound(store);
  });

  it('are added to those that it has', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, ram(1), { tags: ['one', 'two'] });
    const b = await save(store, ram(2), { tags: ['three'] });
    assert.deepEqual(store.addTags('three', ['two', 'four', 'three']), {
      id: b.id,
      tags: ['four', 'three', 'two'],
      movedTags: [{ tag: 'two', from: a.id }],
    });
    assert.deepEqual(tagsOf(store), [['one'], ['four', 'three', 'two']]);
    assert.deepEqual(filesOf(dir), { four: b.id, one: a.id, three: b.id, two: b.id });
    for (const bad of ['a/b', '', a.id])
      assert.throws(() => store.addTags(a.id, ['good', bad]), { code: 'USAGE' });
    assert.throws(() => store.addTags('none', ['good']), { code: 'NO_SUCH_SNAPSHOT' });
    assert.deepEqual(tagsOf(store), [['one'], ['four', 'three', 'two']]);
  });

  it('stay with another snapshot when those of one snapshot are removed', async function () {
    const { store } = newStore(this);
    const first = await save(store, ram(1), { tags: ['x', 'y'] });
    await save(store, ram(2), { tag: 'z' });
    assert.throws(() => store.removeTags(['x', 'z'], first.id), {
      code: 'NO_SUCH_TAG',
      message: /no tag "z" on snapshot/,
    });
    assert.deepEqual(tagsOf(store), [['x', 'y'], ['z']]);
    assert.deepEqual(store.removeTags(['x', 'y'], first.id), [
      { tag: 'x', id: first.id },
      { tag: 'y', id: first.id },
    ]);
  });

  it('are removed without it: all that are given, or none', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, ram(1), { tags: ['one', 'two'] });
    const b = await save(store, ram(2), { tags: ['three'] });
    assert.throws(() => store.removeTags(['one', 'none']), {
      code: 'NO_SUCH_TAG',
      message: /no tag "none" in/,
    });
    assert.throws(() => store.removeTags(['one', a.id]), { code: 'USAGE' });
    // The beginning of an ID is no tag.
    assert.throws(() => store.removeTags([b.id.slice(0, 8)]), { code: 'NO_SUCH_TAG' });
    assert.deepEqual(tagsOf(store), [['one', 'two'], ['three']]);
    assert.deepEqual(store.removeTags(['three', 'one', 'three']), [
      { tag: 'three', id: b.id },
      { tag: 'one', id: a.id },
    ]);
    assert.deepEqual(tagsOf(store), [['two'], []]);
    assert.deepEqual(filesOf(dir), { two: a.id });
    assert.deepEqual(await load(store, b.id), ram(2));
    await requireSound(store);
  });

  it('name it for rm only if all of them are given', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, ram(1), { tags: ['a1', 'b1', 'c1'] });
    const other = await save(store, ram(2), { tags: ['single'] });
    assert.throws(() => store.remove(['single', 'a1']), {
      code: 'HAS_OTHER_TAGS',
      message: 'the snapshot tagged a1 also has the tags b1 and c1',
      hint: `To remove only the tag: livesnap untag a1. To remove the snapshot with all its tags: livesnap rm ${id}.`,
    });
    assert.throws(() => store.remove(['c1', 'a1']), {
      code: 'HAS_OTHER_TAGS',
      message: 'the snapshot tagged c1 and a1 also has the tag b1',
      hint: `To remove only the tags: livesnap untag c1 a1. To remove the snapshot with all its tags: livesnap rm ${id}.`,
    });
    assert.deepEqual(tagsOf(store), [['a1', 'b1', 'c1'], ['single']]);
    assert.deepEqual(store.remove(['single']), [{ id: other.id, tags: ['single'] }]);
    assert.deepEqual(store.remove(['a1', 'c1', 'b1']), [{ id, tags: ['a1', 'b1', 'c1'] }]);
    assert.deepEqual(filesOf(dir), {});
  });

  it('name it for rm by a pattern only if all of them match or are given', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, ram(1), { tags: ['run-1', 'run-2'] });
    const b = await save(store, ram(2), { tags: ['run-10', 'keep'] });
    const c = await save(store, ram(3), { tags: ['other'] });
    assert.throws(() => store.remove(['other', 'run-*']), {
      code: 'HAS_OTHER_TAGS',
      message: 'the snapshot tagged run-10 also has the tag keep',
      hint: `To remove only the tag: livesnap untag run-10. To remove the snapshot with all its tags: livesnap rm ${b.id}.`,
    });
    for (const dryRun of [true, false])
      assert.throws(() => store.remove(['other', 'runs-*'], { dryRun }), {
        code: 'NO_SUCH_TAG',
        message: `no tag in ${dir} matches "runs-*"`,
        hint: 'livesnap ls lists the tags.',
      });
    assert.equal(store.list().length, 3);
    const reader = Store.open(dir, { write: false });
    const would = reader.remove(['run-?', 'run-2'], { dryRun: true });
    reader.close();
    assert.deepEqual(would, [{ id: a.id, tags: ['run-1', 'run-2'] }]);
    assert.equal(store.list().length, 3);
    assert.deepEqual(store.remove(['run-?', 'run-2']), would);
    assert.deepEqual(store.remove(['run-*', 'k*', 'other']), [
      { id: b.id, tags: ['keep', 'run-10'] },
      { id: c.id, tags: ['other'] },
    ]);
    assert.deepEqual(filesOf(dir), {});
  });

  it('are removed with it when it is named by its ID', async function () {
    const { store, dir } = newStore(this);
    for (const ref of ['whole', 'prefix', 'both']) {
      const { id } = await save(store, ram(1), { tags: ['a1', 'b1'] });
      const refs = { whole: [id], prefix: [id.slice(0, 20)], both: ['a1', id] }[ref]!;
      assert.deepEqual(store.remove(refs), [{ id, tags: ['a1', 'b1'] }]);
      assert.deepEqual(filesOf(dir), {});
      assert.throws(() => store.resolve('b1'), { code: 'NO_SUCH_SNAPSHOT' });
    }
  });

  it('are all kept by a repair that has only the files', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, ram(1), { tags: ['a1', 'b1', 'c1'] });
    await save(store, ram(2), { tags: ['single'] });
    store.close();
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(dir, `store.db${suffix}`), { force: true });
    const { actions } = await Store.repair(dir);
    assert.ok(actions.some((sentence) => sentence.includes('2 snapshots, 4 tags')));
    const repaired = Store.open(dir, { write: true });
    onDrop(this, () => repaired.close());
    assert.deepEqual(tagsOf(repaired), [['a1', 'b1', 'c1'], ['single']]);
    assert.equal(repaired.resolve('c1'), a.id);
    await requireSound(repaired);
  });

  it('are at most 1024, except after a repair', async function () {
    const { store, dir } = newStore(this);
    await assert.rejects(store.beginSave({ regions: [], tags: many(1025) }), { code: 'USAGE' });
    const { id } = await save(store, ram(1), { tags: many(1024) });
    assert.equal(store.find(id).tags.length, 1024);
    assert.throws(() => store.addTags(id, ['more']), {
      code: 'USAGE',
      message: 'a snapshot cannot have 1025 tags',
    });
    store.addTags(id, ['t0']);
    store.close();
    for (const label of ['more', 'a-first']) writeFileSync(join(dir, 'tags', label), `${id}\n`);
    await Store.repair(dir);
    const repaired = Store.open(dir, { write: true });
    onDrop(this, () => repaired.close());
    assert.equal(repaired.find(id).tags.length, 1026);
    // A copy carries as many as a snapshot may have.
    const { store: there, dir: other } = newStore(this);
    const [result] = await copySnapshots({
      ...{ storeDir: dir, direction: 'to', remote: other, refs: [id] },
      ...silent,
    });
    assert.deepEqual(result!.skippedTags, repaired.find(id).tags.slice(1024));
    assert.deepEqual(there.find(id).tags, repaired.find(id).tags.slice(0, 1024));
  });

  it('are copied, exported and imported, except those that name other snapshots there', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, ram(1), { tags: ['a1', 'b1', 'c1'] });
    const { store: there, dir: other } = newStore(this);
    const theirs = await save(there, ram(2), { tags: ['b1', 'theirs'] });
    const [result] = await copySnapshots({
      ...{ storeDir: dir, direction: 'to', remote: other, refs: ['b1'] },
      ...silent,
    });
    assert.deepEqual(result!.skippedTags, ['b1']);
    assert.deepEqual(there.find(id).tags, ['a1', 'c1']);
    assert.equal(there.resolve('b1'), theirs.id);
    assert.deepEqual(filesOf(other), { a1: id, b1: theirs.id, c1: id, theirs: theirs.id });
    await requireSound(there);

    const to = join(scratchDir(this), 'exported');
    assert.deepEqual((await exportSnapshot({ storeDir: dir, ref: 'c1', to, ...silent })).skippedTags, []);
    assert.deepEqual(filesOf(to), { a1: id, b1: id, c1: id });
    const into = join(scratchDir(this), 'into');
    await importSnapshots({ storeDir: into, from: to, ...silent });
    const imported = Store.open(into, { write: false });
    onDrop(this, () => imported.close());
    assert.deepEqual(tagsOf(imported), [['a1', 'b1', 'c1']]);
  });

  for (const early of ['source', 'destination'] as const)
    it(`are one when an earlier livesnap is the ${early} of a copy`, async function () {
      const { store: here } = newStore(this);
      const { id } = await save(here, ram(1), { tags: ['a1', 'b1', 'c1'] });
      const { store: there } = newStore(this);
      const [client, server] = localChannels();
      const receive = client.receive.bind(client);
      // An earlier livesnap neither sends nor reads the tags of an offer, and `done` is a flag.
      let doneBytes = 0;
      client.receive = async (...types): Promise<Message> => {
        const message = await receive(...types);
        const { type, bytes } = message;
        if (type === MessageType.done) doneBytes = bytes.length;
        if (type === MessageType.offer && early === 'source') {
          const length = bytes.readUInt32LE(0);
          const { tags, ...header } = JSON.parse(bytes.toString('utf8', 4, 4 + length));
          assert.deepEqual(tags, ['a1', 'b1', 'c1']);
          const json = Buffer.from(JSON.stringify(header));
          const size = Buffer.alloc(4);
          size.writeUInt32LE(json.length);
          return { type, bytes: Buffer.concat([size, json, bytes.subarray(4 + length)]) };
        }
        return early === 'destination' && type === MessageType.done
          ? { type, bytes: bytes.subarray(0, 1) }
          : message;
      };
      const asksFrom = early === 'source';
      const [asking, serving] = asksFrom ? [there, here] : [here, there];
      const send = client.send.bind(client);
      let sentDone = 0;
      client.send = async (type, ...parts) => {
        if (type === MessageType.done) sentDone = Buffer.concat(parts).length;
        await send(type, ...parts);
      };
      const options = { ...silent, compress: false };
      const served = serveCopies(server, () => serving, options).catch((error: Error) => error);
      const [result] = await requestCopies(client, asking, asksFrom ? 'from' : 'to', ['a1'], options);
      await served;
      if (asksFrom) {
        assert.equal(sentDone, 1, 'an earlier source reads one byte');
        assert.deepEqual(there.find(id).tags, ['a1']);
        assert.deepEqual(result!.skippedTags, []);
      } else {
        assert.ok(doneBytes > 1);
        assert.deepEqual(result!.skippedTags, ['b1', 'c1']);
      }
    });
});

describe('an index in which a snapshot has at most one tag', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [golden, version] of [
    ['v1/whole', 1],
    ['v1/disks', 2],
  ] as const) {
    const expected = goldenSnapshots(golden).map(({ tags }) => tags);

    it(`is read as it is, and changed when it is opened for writing (version ${version})`, async function () {
      const dir = copyOfGolden(this, golden);
      const before = indexOf(dir);
      assert.equal(before.version, version);
      const reader = Store.open(dir, { write: false });
      assert.deepEqual(tagsOf(reader), expected);
      for (const [id, tag] of goldenSnapshots(golden).flatMap(({ id, tags }) => tags.map((tag) => [id, tag])))
        assert.equal(reader.resolve(tag!), id);
      await requireSound(reader);
      reader.close();
      assert.deepEqual(indexOf(dir), before);

      const writer = Store.open(dir, { write: true });
      assert.deepEqual(tagsOf(writer), expected);
      writer.close();
      assert.deepEqual(indexOf(dir), { ...before, version: 5 });
      const again = Store.open(dir, { write: true });
      onDrop(this, () => again.close());
      const { id, tags } = again.list()[0]!;
      again.addTags(id, ['zz-more']);
      assert.deepEqual(again.find(id).tags, [...tags, 'zz-more']);
      await requireSound(again);
    });

    it(`is read where it cannot be written (version ${version})`, async function () {
      const dir = copyOfGolden(this, golden);
      mountReadOnly(this, dir);
      const reader = Store.open(dir, { write: false });
      onDrop(this, () => reader.close());
      assert.deepEqual(tagsOf(reader), expected);
      assert.throws(() => Store.open(dir, { write: true }), { code: 'READ_ONLY' });
    });
  }

  // With 48 KiB there is room to open the database, but not to change it.
  for (const freeBytes of [0, 48 << 10])
    it(`is changed on a full disk with ${freeBytes} bytes left, so that a snapshot can be removed`, async function () {
      const at = join(scratchDir(this), 'small');
      mkdirSync(at);
      mountSmall(this, at, 8 << 20);
      const dir = join(at, 'store');
      const made = Store.open(dir, { write: true, create: true });
      for (let i = 0; i < 300; i++) await save(made, { x: noise(i % 2, 1) }, { tag: `snapshot-number-${i}` });
      await made.gc({ dryRun: false }); // makes the reserve again
      made.close();
      makeIndexOlder(dir, 2);
      const filler = openSync(join(at, 'filler'), 'w');
      for (const bytes of [65536, 512])
        try {
          for (;;) writeFileSync(filler, Buffer.alloc(bytes));
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
        }
      closeSync(filler);
      assert.equal(statfsSync(at).bavail, 0);
      truncateSync(join(at, 'filler'), statSync(join(at, 'filler')).size - freeBytes);
      const reader = Store.open(dir, { write: false });
      assert.equal(reader.list().length, 300);
      reader.close();
      const store = Store.open(dir, { write: true });
      onDrop(this, () => store.close());
      assert.equal(store.remove(['snapshot-number-7']).length, 1);
      await store.gc({ dryRun: false });
      assert.equal(store.list().length, 299);
      await requireSound(store);
    });

  it('is what the tests make of a later one', async function () {
    for (const version of [1, 2]) {
      const { store, dir } = newStore(this);
      await save(store, ram(1), { tag: 'a1' });
      await save(store, ram(2));
      store.close();
      const { rows } = indexOf(dir);
      makeIndexOlder(dir, version);
      assert.deepEqual(indexOf(dir), { version, rows });
      const reader = Store.open(dir, { write: false });
      await requireSound(reader);
      reader.close();
      Store.open(dir, { write: true }).close();
      assert.deepEqual(indexOf(dir), { version: 5, rows });
    }
  });
});
