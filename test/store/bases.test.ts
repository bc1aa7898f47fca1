/** Saves whose regions have bases of their own: other snapshots, other names, other sizes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import {
  BATCH_PAGES,
  PAGE_BYTES,
  type PageRun,
  type PageSource,
  type SavedRegion,
  type SaveResult,
} from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import {
  diskMetadata,
  dropScratch,
  flipBit,
  load,
  MemorySource,
  newStore,
  noise,
  save,
  scratchDir,
  seeded,
} from './scratch.js';

interface SaveOptions {
  readonly only?: Record<string, number[]>;
  readonly sequential?: readonly number[];
}

/** Saves with these bases. Returns the result and which bases were used. */
async function saveOn(
  store: Store,
  contents: Record<string, Buffer>,
  regions: readonly SavedRegion[],
  { only, sequential = [] }: SaveOptions = {},
): Promise<SaveResult & { bases: readonly (number | null)[] }> {
  const session = await store.beginSave({ regions });
  try {
    const source = new MemorySource(contents, only);
    await session.store({ regions: source.regions, sequential, next: (into) => source.next(into) });
    return { ...(await session.commit(diskMetadata())), bases: session.bases };
  } catch (error) {
    await session.abort();
    throw error;
  }
}

const on = (region: string, ...bases: [snapshot: string, region: string][]): SavedRegion => ({
  region,
  bases: bases.map(([snapshot, name]) => ({ snapshot, region: name })),
});

const putBytes = (store: Store, bytes: Buffer): Promise<SaveResult> =>
  store.put(Readable.from([bytes]), { tags: [], name: null });

describe('the bases of a save', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('are one for each region: a file for a disk, the last save for RAM', async function () {
    const { store } = newStore(this);
    const image = noise(1, 1500);
    const file = await putBytes(store, image);
    const ram = noise(2, 600);
    const first = await save(store, { 'ram@0x0': ram });
    ram.set(noise(3, 1), 5 * PAGE_BYTES);
    const disk = Buffer.from(image);
    disk.set(noise(4, 1), 700 * PAGE_BYTES);
    const saved = await saveOn(
      store,
      { 'ram@0x0': ram, disk0: disk },
      [on('ram@0x0', [first.id, 'ram@0x0']), on('disk0', [file.id, 'file'])],
      { only: { 'ram@0x0': [5], disk0: [700] } },
    );
    assert.deepEqual([saved.bases, saved.parent], [[0, 0], first.id]);
    assert.deepEqual([saved.newChunks, saved.unchangedPages], [2, 599 + 1499]);
    assert.deepEqual(await load(store, saved.id), { 'ram@0x0': ram, disk0: disk });
    // The chunks that both bases have stay when the bases go.
    store.remove([file.id, first.id]);
    await store.gc({ dryRun: false });
    assert.deepEqual(await load(store, saved.id), { 'ram@0x0': ram, disk0: disk });
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('are the first in each list that the store has, with the parent of the first region', async function () {
    const { store } = newStore(this);
    const disk = noise(1, 20);
    const a = await save(store, { disk0: disk });
    const b = await save(store, { 'ram@0x0': noise(2, 3) });
    const gone = '0'.repeat(32);
    const saved = await saveOn(
      store,
      { disk0: disk, disk1: disk, disk2: disk },
      [
        on('disk0', [gone, 'disk0'], [b.id, 'disk0'], [a.id, 'disk0'], [b.id, 'ram@0x0']),
        on('disk1', [gone, 'disk0']),
        on('disk2'),
      ],
      { only: { disk0: [], disk1: [...disk.keys()].slice(0, 20), disk2: [...disk.keys()].slice(0, 20) } },
    );
    assert.deepEqual([saved.bases, saved.parent], [[2, null, null], a.id]);
    assert.deepEqual(await load(store, saved.id), { disk0: disk, disk1: disk, disk2: disk });
    const other = await saveOn(store, { x: disk, disk0: disk }, [on('x'), on('disk0', [a.id, 'disk0'])], {
      only: { x: [0], disk0: [] },
    });
    assert.deepEqual([other.bases, other.parent], [[null, 0], null]);
  });

  it('are not read where nothing changed', async function () {
    const { store, dir } = newStore(this);
    const image = noise(1, 2000);
    const file = await putBytes(store, image);
    // A flipped bit in any frame of the manifest blocks and of the data would be found.
    const [pack] = readdirSync(join(dir, 'packs'));
    flipBit(join(dir, 'packs', pack!), 1000);
    const saved = await saveOn(store, { disk0: image }, [on('disk0', [file.id, 'file'])], { only: {} });
    assert.deepEqual([saved.newChunks, saved.unchangedPages], [0, 2000]);
  });

  it('leave a region without one when the file of the snapshot is damaged', async function () {
    const { store, dir } = newStore(this);
    const disk = noise(1, 20);
    const damaged = await save(store, { disk0: disk });
    const sound = await save(store, { disk0: disk });
    flipBit(join(dir, 'snapshots', damaged.id), 200);
    const session = await store.beginSave({
      regions: [on('disk0', [damaged.id, 'disk0']), on('disk1', [damaged.id, 'disk0'], [sound.id, 'disk0'])],
    });
    assert.deepEqual([session.bases, session.parent], [[null, 1], null]);
    await session.abort();
    unlinkSync(join(dir, 'snapshots', damaged.id));
    const again = await store.beginSave({ regions: [on('disk0', [damaged.id, 'disk0'])] });
    assert.deepEqual(again.bases, [null]);
    await again.abort();
  });

  it('may be removed, as long as this process has the snapshot open', async function () {
    const { store, dir } = newStore(this);
    const disk = noise(1, 1200);
    const { id } = await save(store, { disk0: disk });
    const reading = Store.open(dir, { write: false });
    const open = await reading.openSnapshot(id);
    store.remove([id]);
    await store.gc({ dryRun: false });
    disk.set(noise(2, 1), 600 * PAGE_BYTES);
    const saved = await saveOn(store, { disk0: disk }, [on('disk0', [id, 'disk0'])], {
      only: { disk0: [600] },
    });
    assert.deepEqual([saved.bases, saved.parent, saved.newChunks], [[0], id, 1]);
    open.close();
    reading.close();
    await store.gc({ dryRun: false });
    assert.deepEqual(await load(store, saved.id), { disk0: disk });
    const after = await store.beginSave({ regions: [on('disk0', [id, 'disk0'])] });
    assert.deepEqual(after.bases, [null]);
    await after.abort();
  });

  it('stay pinned until the save ends', async function () {
    const { store, dir } = newStore(this);
    const disks = { disk0: noise(1, 700), disk1: noise(2, 700) };
    const a = await save(store, { disk0: disks.disk0 });
    const b = await save(store, { disk1: disks.disk1 });
    const session = await store.beginSave({
      regions: [on('disk0', [a.id, 'disk0']), on('disk1', [b.id, 'disk1'])],
    });
    store.remove([a.id, b.id]);
    await store.gc({ dryRun: false });
    await session.store(new MemorySource(disks, {}));
    await store.gc({ dryRun: false });
    const { id } = await session.commit(diskMetadata());
    await store.gc({ dryRun: false });
    assert.deepEqual(await load(store, id), disks);
    store.remove([id]);
    await store.gc({ dryRun: false });
    assert.deepEqual(readdirSync(join(dir, 'snapshots')), []);
    assert.deepEqual(readdirSync(join(dir, 'packs')), []);
  });

  for (const [title, baseBytes, bytes] of [
    ['a short last page', 700 * PAGE_BYTES + 512, 700 * PAGE_BYTES + 512],
    ['more bytes within a page', 700 * PAGE_BYTES + 1536, 700 * PAGE_BYTES + 512],
    ['more pages', 1300 * PAGE_BYTES, 700 * PAGE_BYTES + 512],
    ['more blocks, and an end between blocks', 1300 * PAGE_BYTES, 1024 * PAGE_BYTES],
    ['fewer bytes within a page', 700 * PAGE_BYTES + 512, 700 * PAGE_BYTES + 1536],
    ['fewer pages', 700 * PAGE_BYTES + 512, 1300 * PAGE_BYTES + 512],
    ['fewer blocks', 100 * PAGE_BYTES, 1300 * PAGE_BYTES],
  ] as const)
    it(`may have ${title}, and bring no bytes from beyond the end of the region`, async function () {
      const { store } = newStore(this);
      const image = noise(1, 1300).subarray(0, baseBytes);
      const file = await putBytes(store, image);
      const disk = Buffer.alloc(bytes);
      image.copy(disk);
      const saved = await saveOn(store, { disk0: disk }, [on('disk0', [file.id, 'file'])], { only: {} });
      assert.deepEqual([saved.bases, saved.parent], [[0], file.id]);
      assert.ok(saved.newChunks <= 1);
      assert.deepEqual(await load(store, saved.id), { disk0: disk });
      // Beyond the end there is nothing, also when the region grows later.
      const grown = Buffer.alloc(1300 * PAGE_BYTES);
      disk.copy(grown);
      const next = await saveOn(store, { disk0: grown }, [on('disk0', [saved.id, 'disk0'])], { only: {} });
      assert.deepEqual(await load(store, next.id), { disk0: grown });
      assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
    });

  it('do not count against the last page that the source gives', async function () {
    const { store } = newStore(this);
    const file = await putBytes(store, noise(1, 3));
    const disk = noise(2, 2).subarray(0, PAGE_BYTES + 512);
    const saved = await saveOn(store, { disk0: disk }, [on('disk0', [file.id, 'file'])]);
    assert.deepEqual(await load(store, saved.id), { disk0: disk });
  });

  it('report damage in a block that has to be read, with the snapshot named', async function () {
    const { store, dir } = newStore(this);
    const disk = noise(1, 300);
    const { id } = await save(store, { disk0: disk });
    const [pack] = readdirSync(join(dir, 'packs'));
    writeFileSync(join(dir, 'packs', pack!), 'gone');
    await assert.rejects(
      saveOn(store, { disk0: disk }, [on('disk0', [id, 'disk0'])], { only: { disk0: [7] } }),
      { code: 'DAMAGED' },
    );
  });
});

/** Pages of one region, in the given order. */
class OrderedSource implements PageSource {
  readonly regions;
  readonly sequential = [0];
  #at = 0;

  constructor(
    readonly contentOf: (page: number) => Uint8Array,
    readonly order: readonly number[],
    pages: number,
    readonly perBatch = BATCH_PAGES,
  ) {
    this.regions = [{ name: 'disk0', sizeBytes: pages * PAGE_BYTES }];
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const pages = this.order.slice(this.#at, this.#at + this.perBatch);
    this.#at += pages.length;
    for (const [i, page] of pages.entries()) into.set(this.contentOf(page), i * PAGE_BYTES);
    return pages.length === 0 ? null : { region: 0, pages: Uint32Array.from(pages) };
  }
}

describe('a region that is read in order', () => {
  /** So many blocks that a part of them is stored before the end. */
  const PAGES = 512 * 300;
  /** One page in each block, and some more. */
  const order = Array.from({ length: 300 }, (_, block) => [
    block * 512 + (block % 500),
    block * 512 + 511,
  ]).flat();

  const page = (seed: number): Uint8Array => {
    const bytes = Buffer.alloc(PAGE_BYTES);
    bytes.writeUInt32LE(seed % 97 === 0 ? 0 : seed + 1); // some pages are zero
    return bytes;
  };

  async function saveOrdered(
    store: Store,
    sources: readonly OrderedSource[],
    regions: readonly SavedRegion[] = [],
  ): Promise<SaveResult> {
    const session = await store.beginSave({ regions });
    for (const source of sources) await session.store(source);
    return session.commit(diskMetadata());
  }

  /** The pages of a snapshot that are not zero. */
  async function pagesOf(store: Store, id: string): Promise<Map<number, number>> {
    const open = await store.openSnapshot(id);
    const found = new Map<number, number>();
    await open.fill({
      regions: open.regions,
      write: ({ pages }, bytes) => {
        const view = Buffer.from(bytes.buffer, bytes.byteOffset);
        for (const [i, number] of pages.entries()) found.set(number, view.readUInt32LE(i * PAGE_BYTES));
      },
    });
    open.close();
    return new Map([...found].sort(([a], [b]) => a - b));
  }

  afterEach(function () {
    dropScratch(this);
  });

  it('is the same as any other', async function () {
    const { store } = newStore(this);
    const saved = await saveOrdered(store, [new OrderedSource(page, order, PAGES)]);
    const expected = new Map(order.filter((n) => n % 97 !== 0).map((n) => [n, n + 1]));
    assert.deepEqual(await pagesOf(store, saved.id), expected);
    assert.deepEqual([saved.newChunks, saved.reusedChunks], [expected.size, 0]);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('takes memory that does not grow with its size', function () {
    this.timeout(120_000);
    const child = new URL('./saving-disk-child.js', import.meta.url);
    const peakOf = (gib: number, how: 'in-order' | 'any-order'): number => {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [fileURLToPath(child), join(scratchDir(this), 'store'), String(gib), how],
        { encoding: 'utf8' },
      );
      assert.equal(status, 0, stderr);
      return Number(stdout) / 1024;
    };
    // 32,768 blocks of 8 KiB.
    const [small, large, unannounced] = [
      peakOf(1, 'in-order'),
      peakOf(64, 'in-order'),
      peakOf(64, 'any-order'),
    ];
    assert.ok(unannounced - small > 200, `${unannounced} MiB, ${small} MiB for a small disk`);
    assert.ok(large - small < 100, `${large} MiB, ${small} MiB for a small disk`);
  });

  it('may get pages late while as many batches as possible are being stored', async function () {
    const { store } = newStore(this);
    const last = Array.from({ length: 8 }, (_, i) => PAGES - 9 + i);
    // One page a batch; blocks 0 and 1 are finished when these pages of them come.
    const all = [...order, ...last, 1, 2, 600];
    const saved = await saveOrdered(store, [new OrderedSource(page, all, PAGES, 1)]);
    const expected = all.filter((n) => n % 97 !== 0).sort((a, b) => a - b);
    assert.deepEqual(await pagesOf(store, saved.id), new Map(expected.map((n) => [n, n + 1])));
    store.close();
  });

  it('may get pages late or again, and the last copy counts', async function () {
    const { store } = newStore(this);
    const late = [3, 700, 5000, 511, 150_000, 80_000, 1];
    const next = seeded(5);
    const shuffled = order
      .map((n) => [next(), n] as const)
      .sort(([a], [b]) => a - b)
      .map(([, n]) => n);
    const sources = [
      new OrderedSource(page, order, PAGES),
      new OrderedSource((n) => page(n + 1_000_000), late, PAGES),
      new OrderedSource((n) => page(n + 2_000_000), shuffled.slice(0, 200), PAGES, 7),
    ];
    const saved = await saveOrdered(store, sources);
    const expected = new Map<number, number>();
    const give = (numbers: readonly number[], add: number): void => {
      for (const n of numbers)
        if ((n + add) % 97 === 0) expected.delete(n);
        else expected.set(n, n + add + 1);
    };
    give(order, 0);
    give(late, 1_000_000);
    give(shuffled.slice(0, 200), 2_000_000);
    assert.deepEqual(await pagesOf(store, saved.id), new Map([...expected].sort(([a], [b]) => a - b)));
    assert.equal(saved.newChunks + saved.reusedChunks, expected.size);
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('keeps the blocks of its base where all pages become again what they were', async function () {
    const { store } = newStore(this);
    const base = await saveOrdered(store, [new OrderedSource(page, order, PAGES)]);
    const regions = [on('disk0', [base.id, 'disk0'])];
    const same = await saveOrdered(store, [new OrderedSource(page, order, PAGES)], regions);
    const expected = order.filter((n) => n % 97 !== 0).length;
    assert.deepEqual([same.unchangedPages, same.newChunks, same.reusedChunks], [expected, 0, 0]);
    const back = await saveOrdered(
      store,
      [
        new OrderedSource((n) => page(n + 1_000_000), order, PAGES),
        new OrderedSource(() => Buffer.alloc(PAGE_BYTES), order, PAGES),
        new OrderedSource(page, order, PAGES),
      ],
      regions,
    );
    assert.equal(back.unchangedPages, expected);
    assert.equal(back.newChunks + back.reusedChunks, 0);
    assert.deepEqual(await pagesOf(store, back.id), await pagesOf(store, base.id));
  });

  it('may be shorter than its base, with its last block first', async function () {
    const { store } = newStore(this);
    const base = await saveOrdered(store, [new OrderedSource(page, order, PAGES)]);
    const shorter = 512 * 280 + 100;
    const source = (): OrderedSource =>
      new OrderedSource(
        (n) => page(n + 1_000_000),
        order.filter((n) => n < shorter).reverse(), // the last block comes first
        shorter,
      );
    const saved = await saveOrdered(store, [source()], [on('disk0', [base.id, 'disk0'])]);
    const expected = order.filter((n) => n < shorter && (n + 1_000_000) % 97 !== 0);
    assert.deepEqual([...(await pagesOf(store, saved.id)).keys()], expected);
  });
});
