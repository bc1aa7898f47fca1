import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, fingerprintOf, flipBit, load, newStore, noise, save, textPages } from './scratch.js';

describe('a lost index', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is rebuilt from the files, with every snapshot, tag and chunk', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 900);
    const a = await save(store, { 'ram@0x0': ram }, { tag: 'a' });
    ram.set(textPages(3, 100), 0);
    const b = await save(store, { 'ram@0x0': ram }, { parent: a.id, tag: 'b' });
    const gone = await save(store, { disk: noise(4, 300) });
    store.remove(['a', gone.id]);
    await store.gc({ dryRun: false }); // leaves a pack of the second generation
    assert.ok(readdirSync(join(dir, 'packs')).some((name) => parsePackName(name)!.generation > 0));
    await store.put(join(dir, 'lock'), { tags: ['file'], name: null });
    const listing = store.list();
    const stats = store.stats();
    store.close();
    for (const file of ['store.db', 'store.db-wal', 'store.db-shm']) rmSync(join(dir, file), { force: true });
    assert.throws(() => Store.open(dir, { write: false }), { code: 'NOT_A_STORE', hint: /repair/ });
    assert.throws(() => Store.open(dir, { write: true, create: true }), { code: 'NOT_A_STORE' });

    const { actions } = await Store.repair(dir);
    assert.ok(
      actions.some((action) => /rebuilt: 2 snapshots/.test(action)),
      actions.join(),
    );
    const repaired = Store.open(dir, { write: true });
    try {
      assert.deepEqual(repaired.list(), listing);
      const { indexBytes, ratio, ...rest } = repaired.stats();
      assert.deepEqual({ ...rest, indexBytes: 0, ratio: 0 }, { ...stats, indexBytes: 0, ratio: 0 });
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
      assert.deepEqual(await load(repaired, 'b'), { 'ram@0x0': ram });
      // Chunks are found, and pack numbers are not used twice.
      const before = new Set(readdirSync(join(dir, 'packs')));
      const again = await save(repaired, { 'ram@0x0': Buffer.concat([ram, noise(9, 1)]) });
      assert.equal(again.newChunks, 1);
      const fresh = readdirSync(join(dir, 'packs')).filter((name) => !before.has(name));
      assert.deepEqual(
        fresh.map((name) => parsePackName(name)!.generation),
        [0],
      );
      assert.deepEqual(await load(repaired, b.id), { 'ram@0x0': ram });
    } finally {
      repaired.close();
    }
  });

  it('is rebuilt with the older of two generations, names what rm left, and quarantines damaged files', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 64);
    const a = await save(store, { 'ram@0x0': ram }, { tag: 'a' });
    const b = await save(store, { 'ram@0x0': noise(2, 64) });
    const aFile = readFileSync(join(dir, 'snapshots', a.id));
    const [firstPack] = readdirSync(join(dir, 'packs')).sort();
    // A gc that rewrote the pack and was killed before its commit.
    const rewritten = new PackWriter(pageOps, dir, parsePackName(firstPack!)!.number, 1);
    rewritten.append(ram, 0, fingerprintOf(ram.subarray(0, PAGE_BYTES)), false);
    rewritten.seal();
    store.remove([a.id]);
    writeFileSync(join(dir, 'snapshots', a.id), aFile); // an rm that was killed before it deleted the file
    writeFileSync(join(dir, 'tags', 'stray'), `${'0'.repeat(32)}\n`);
    flipBit(join(dir, 'snapshots', b.id), 40);
    store.close();
    const { actions } = await Store.repair(dir);
    assert.ok(
      actions.some((action) => action.includes(a.id) && /rm or a save/.test(action)),
      actions.join('\n'),
    );
    assert.ok(actions.some((action) => action.includes(b.id) && action.includes('quarantine/')));
    assert.ok(actions.some((action) => /stray/.test(action)));
    const repaired = Store.open(dir, { write: true });
    try {
      assert.deepEqual(
        repaired.list().map(({ id }) => id),
        [a.id],
      );
      assert.deepEqual(await load(repaired, a.id), { 'ram@0x0': ram });
      await repaired.gc({ dryRun: false });
      assert.deepEqual(await load(repaired, a.id), { 'ram@0x0': ram });
      assert.deepEqual(readdirSync(join(dir, 'quarantine')), [b.id]);
    } finally {
      repaired.close();
    }
  });

  it('is replaced by repair when it is garbage, unless another process has the store open', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 5) });
    store.close();
    const bytes = readFileSync(join(dir, 'store.db'));
    writeFileSync(join(dir, 'store.db'), Buffer.alloc(bytes.length, 'x'));
    assert.throws(() => Store.open(dir, { write: false }), { code: 'DAMAGED', hint: /repair/ });
    await Store.repair(dir);
    const again = Store.open(dir, { write: false });
    assert.deepEqual(
      again.list().map((snapshot) => snapshot.id),
      [id],
    );
    await assert.rejects(Store.repair(dir), { code: 'STORE_BUSY' });
    again.close();
  });
});
