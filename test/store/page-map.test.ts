/** The map of a region: the class of each page, summed up by cells. */
import assert from 'node:assert/strict';
import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { PageClass } from '../../src/store/types.js';
import { dropScratch, flipBit, newStore, noise, onDrop, save, textPages } from './scratch.js';

const { own, shared, damaged, changed } = PageClass;
const BLOCK = 512;
const zeros = (pages: number): Buffer => Buffer.alloc(pages * PAGE_BYTES);

describe('the map of a region', () => {
  afterEach(function () {
    dropScratch(this);
  });

  /** A parent, and a snapshot of 3 blocks: shared pages and zeros, own pages, zeros. */
  async function build(test: Mocha.Context) {
    const { store, dir } = newStore(test);
    const common = noise(1, 100);
    const before = Buffer.concat([common, zeros(3 * BLOCK - 100)]);
    const parent = await save(store, { 'ram@0x0': before });
    const after = Buffer.concat([common, zeros(BLOCK - 100), noise(2, 40), zeros(2 * BLOCK - 40)]);
    const { id } = await save(store, { 'ram@0x0': after }, { parent: parent.id });
    return { store, dir, parent, id };
  }

  it('tells zero, shared, own and changed pages apart', async function () {
    const { store, id } = await build(this);
    const { cells, ...counts } = await store.map(id, {});
    assert.deepEqual(counts, {
      region: 'ram@0x0',
      sizeBytes: 3 * BLOCK * PAGE_BYTES,
      fromPage: 0,
      pages: 3 * BLOCK,
      pagesPerCell: 1,
      ...{ zeroPages: 3 * BLOCK - 140, ownPages: 40, sharedPages: 100, damagedPages: 0, changedPages: 40 },
    });
    const expected = new Uint8Array(3 * BLOCK);
    expected.fill(shared, 0, 100);
    expected.fill(own | changed, BLOCK, BLOCK + 40);
    assert.deepEqual(cells, expected);
  });

  it('sums up the pages of a cell, and has as many cells as fit', async function () {
    const { store, id } = await build(this);
    const blocks = await store.map(id, { maxCells: 3 });
    assert.equal(blocks.pagesPerCell, BLOCK);
    assert.deepEqual([...blocks.cells], [shared, own | changed, 0]);
    const one = await store.map(id, { maxCells: 1 });
    assert.deepEqual([one.pagesPerCell, ...one.cells], [4 * BLOCK, shared | own | changed]);
    const two = await store.map(id, { maxCells: 2 });
    assert.deepEqual([two.pagesPerCell, ...two.cells], [2 * BLOCK, shared | own | changed, 0]);
  });

  it('maps a part of a region, and compares with another snapshot', async function () {
    const { store, parent, id } = await build(this);
    const part = await store.map(id, { fromPage: BLOCK, pages: BLOCK + 10 });
    assert.deepEqual([part.fromPage, part.pages, part.cells.length], [BLOCK, BLOCK + 10, BLOCK + 10]);
    assert.deepEqual([part.ownPages, part.sharedPages, part.zeroPages], [40, 0, BLOCK - 30]);
    assert.equal(part.cells[39], own | changed);
    assert.equal(part.cells[40], 0);
    const cut = await store.map(id, { fromPage: 0, pages: 10, maxCells: 1 });
    assert.deepEqual([cut.sharedPages, [...cut.cells]], [10, [shared]]);
    assert.equal((await store.map(id, { fromPage: 30 * BLOCK })).pages, 0);
    const third = await save(store, { 'ram@0x0': Buffer.concat([noise(9, 1), zeros(3 * BLOCK - 1)]) });
    assert.equal((await store.map(id, { base: third.id })).changedPages, 140);
    assert.equal((await store.map(id, { base: parent.id })).changedPages, 40);
    for (const fromPage of [-512, 1, 0.5, Number.NaN])
      await assert.rejects(store.map(id, { fromPage }), { code: 'USAGE' });
    await assert.rejects(store.map(id, { pages: 0 }), { code: 'USAGE' });
    await assert.rejects(store.map(id, { base: 'absent' }), { code: 'NO_SUCH_SNAPSHOT' });
  });

  it('tells at once what another snapshot begins and ceases to share', async function () {
    const { store, id } = await build(this);
    const owned = async (): Promise<number> => (await store.map(id, {})).ownPages;
    assert.equal(await owned(), 40);
    const other = await save(store, { 'ram@0x0': noise(2, 30) });
    assert.equal(await owned(), 10);
    assert.equal(await owned(), 10);
    store.remove([other.id]);
    await store.gc({ dryRun: false });
    assert.equal(await owned(), 40);
  });

  it('has no changes where there is no parent, or it is damaged or removed', async function () {
    const { store, dir, parent, id } = await build(this);
    assert.equal((await store.map(parent.id, {})).changedPages, null);
    store.remove([parent.id]);
    const map = await store.map(id, { maxCells: 3 });
    assert.equal(map.changedPages, null);
    assert.deepEqual([...map.cells], [own, own, 0], 'what was shared is its own now');
    assert.equal(readdirSync(join(dir, 'snapshots')).length, 1);
  });

  it('marks the pages of lost packs as damaged, also with a damaged snapshot beside it', async function () {
    const { store, dir, id } = await build(this);
    const packs = readdirSync(join(dir, 'packs')).sort();
    // The first pack has the parent's pages, and manifest blocks of the parent alone.
    unlinkSync(join(dir, 'packs', packs[0]!));
    const again = Store.open(dir, { write: false });
    onDrop(this, () => again.close());
    for (const each of [store, again]) {
      const map = await each.map(id, { maxCells: 3 });
      assert.equal(map.damagedPages, 100);
      assert.equal(map.ownPages, 40);
      assert.equal(map.cells[0]! & damaged, damaged);
      assert.equal(map.cells[1]! & damaged, 0);
    }
  });

  it('marks a block that cannot be read as damaged', async function () {
    const { store, dir, id } = await build(this);
    const packs = readdirSync(join(dir, 'packs')).sort();
    unlinkSync(join(dir, 'packs', packs[1]!)); // with the snapshot's own pages and blocks
    const again = Store.open(dir, { write: false });
    onDrop(this, () => again.close());
    const map = await again.map(id, { maxCells: 3 });
    assert.ok(map.damagedPages >= 40, `${map.damagedPages}`);
    assert.equal(map.cells[1], damaged);
    assert.equal(map.changedPages, null);
    store.close();
  });

  it('finds damaged data only when it reads the data', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: Buffer.concat([textPages(1, 64), noise(3, 64)]) });
    store.close();
    const [pack] = readdirSync(join(dir, 'packs')) as [string];
    flipBit(join(dir, 'packs', pack), 5000);
    const again = Store.open(dir, { write: false });
    onDrop(this, () => again.close());
    assert.equal((await again.map(id, {})).damagedPages, 0);
    const read = await again.map(id, { readData: true });
    assert.ok(read.damagedPages > 0 && read.damagedPages < 128, `${read.damagedPages}`);
    assert.equal(read.ownPages + read.damagedPages, 128);
  });

  it('maps the region that is named, and refuses others and wrong numbers of cells', async function () {
    const { store } = newStore(this);
    const { id } = await save(store, {
      'ram@0x0': noise(1, 3),
      disk0: noise(2, 5).subarray(0, 4 * 4096 + 7),
    });
    const map = await store.map(id, { region: 'disk0' });
    assert.deepEqual([map.region, map.pages, map.ownPages], ['disk0', 5, 5]);
    assert.equal((await store.map(id, {})).region, 'ram@0x0');
    await assert.rejects(store.map(id, { region: 'disk1' }), { code: 'NO_SUCH_REGION' });
    for (const maxCells of [0, 1.5, Number.NaN, 2 ** 21])
      await assert.rejects(store.map(id, { maxCells }), { code: 'USAGE' });
    await assert.rejects(store.map('none', {}), { code: 'NO_SUCH_SNAPSHOT' });
  });

  it('ends between two blocks when the signal is aborted', async function () {
    const { store, id } = await build(this);
    const controller = new AbortController();
    const mapping = store.map(id, { signal: controller.signal }, () => controller.abort(new Error('enough')));
    await assert.rejects(mapping, { message: 'enough' });
  });
});
