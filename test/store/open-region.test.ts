/** Regions that are read on demand, beside everything that changes a store. */
import assert from 'node:assert/strict';
import { readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { readRegion, regionReaderError } from '../../src/native/region-reader.js';
import { type OpenRegion, PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, newStore, noise, save, textPages } from './scratch.js';

const packsOf = (dir: string): string[] => readdirSync(join(dir, 'packs')).sort();

function read({ reader }: OpenRegion, offset: number, length: number): Buffer {
  const into = Buffer.alloc(length, 0xee);
  assert.equal(readRegion(reader, offset, into), 0, JSON.stringify(regionReaderError(reader)));
  return into;
}

async function openRegion(store: Store, ref: string, name: string): Promise<OpenRegion> {
  const snapshot = await store.openSnapshot(ref);
  try {
    return await snapshot.openRegion(name);
  } finally {
    snapshot.close();
  }
}

describe('a region that is open', () => {
  const disk = Buffer.concat([noise(1, 600), Buffer.alloc(100 * PAGE_BYTES), textPages(2, 600)]).subarray(
    0,
    1299 * PAGE_BYTES + 512,
  );
  let region: OpenRegion | null = null;

  const whole = (): Buffer => read(region!, 0, disk.length);

  afterEach(function () {
    region?.close();
    region = null;
    dropScratch(this);
  });

  it('gives the bytes of the snapshot, zeros in its holes and after its end', async function () {
    const { store } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(3, 5), disk0: disk, disk1: noise(4, 3) });
    region = await openRegion(store, id, 'disk0');
    assert.equal(region.sizeBytes, disk.length);
    assert.ok(whole().equals(disk));
    assert.ok(
      read(region, 599 * PAGE_BYTES + 7, 9000).equals(
        disk.subarray(599 * PAGE_BYTES + 7, 599 * PAGE_BYTES + 9007),
      ),
    );
    const end = read(region, disk.length - 100, 300);
    assert.ok(end.equals(Buffer.concat([disk.subarray(-100), Buffer.alloc(200)])));
    const other = await openRegion(store, id, 'disk1');
    assert.ok(read(other, 0, 3 * PAGE_BYTES).equals(noise(4, 3)));
    other.close();
    other.close();
  });

  it('stays readable when the snapshot is removed and gc runs, until it is closed', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: disk, disk1: noise(9, 3000) });
    await save(store, { x: disk.subarray(0, 3 * PAGE_BYTES) });
    region = await openRegion(store, id, 'disk0');
    store.remove([id]);
    await store.gc({ dryRun: false });
    assert.ok(whole().equals(disk));
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
    region.close();
    assert.ok((await store.gc({ dryRun: false })).removedChunks > 4000);
    assert.equal(readdirSync(join(dir, 'snapshots')).length, 1);
  });

  it('follows packs that gc rewrites meanwhile', async function () {
    const { store, dir } = newStore(this);
    const both = await save(store, { x: noise(5, 2000), disk0: disk });
    const { id } = await save(store, { disk0: disk });
    region = await openRegion(store, id, 'disk0');
    assert.ok(read(region, 0, PAGE_BYTES).equals(disk.subarray(0, PAGE_BYTES)));
    const before = packsOf(dir);
    store.remove([both.id]);
    await store.gc({ dryRun: false });
    assert.notDeepEqual(packsOf(dir), before);
    assert.ok(whole().equals(disk));
  });

  it('stays readable when the store is closed and repaired', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: disk });
    await save(store, { x: noise(6, 100) });
    region = await openRegion(store, id, 'disk0');
    store.close();
    const result = await Store.repair(dir);
    assert.deepEqual(result.lost, []);
    assert.ok(whole().equals(disk));
  });

  it('stays readable when its snapshot is removed, and the store repaired after a loss of the index', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: disk });
    region = await openRegion(store, id, 'disk0');
    store.remove([id]);
    store.close();
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(dir, `store.db${suffix}`), { force: true });
    await Store.repair(dir);
    const repaired = Store.open(dir, { write: true });
    await repaired.gc({ dryRun: false });
    repaired.close();
    assert.ok(whole().equals(disk));
  });

  it('may be read again when a lost pack has come back', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: disk });
    region = await openRegion(store, id, 'disk0');
    const [pack] = packsOf(dir);
    renameSync(join(dir, 'packs', pack!), join(dir, 'gone'));
    assert.notEqual(readRegion(region.reader, 0, Buffer.alloc(PAGE_BYTES)), 0);
    assert.equal(regionReaderError(region.reader)!.file, `packs/${pack}`);
    renameSync(join(dir, 'gone'), join(dir, 'packs', pack!));
    assert.ok(whole().equals(disk));
  });

  it('is the base of a save after its snapshot was removed, also through another store object', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: disk });
    region = await openRegion(store, id, 'disk0');
    // A save that ends releases its own pin only.
    await (
      await store.beginSave({ regions: [{ region: 'disk0', bases: [{ snapshot: id, region: 'disk0' }] }] })
    ).abort();
    store.remove([id]);
    store.close();
    const later = Store.open(dir, { write: true });
    await later.gc({ dryRun: false });
    const session = await later.beginSave({
      regions: [{ region: 'disk0', bases: [{ snapshot: id, region: 'disk0' }] }],
    });
    assert.deepEqual(session.bases, [0]);
    await session.abort();
    region.close();
    const none = await later.beginSave({
      regions: [{ region: 'disk0', bases: [{ snapshot: id, region: 'disk0' }] }],
    });
    assert.deepEqual(none.bases, [null]);
    await none.abort();
    later.close();
  });

  it('must exist', async function () {
    const { store } = newStore(this);
    const { id } = await save(store, { disk0: disk });
    await assert.rejects(openRegion(store, id, 'disk1'), { code: 'NO_SUCH_REGION' });
    const closed = await store.openSnapshot(id);
    closed.close();
    await assert.rejects(closed.openRegion('disk0'), { code: 'NOT_POSSIBLE_NOW' });
  });
});
