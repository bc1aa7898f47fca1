/** A machine's snapshot with disks, in every command that handles snapshots. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { loadSqlite } from '../../src/native/modules.js';
import { PAGE_BYTES, type SnapshotMetadata } from '../../src/page-stream.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { copyOfGolden, goldenSnapshots } from '../fixtures/golden-stores.js';
import {
  basedOn,
  diskMetadata,
  dropScratch,
  load,
  MemorySink,
  MemorySource,
  machineMetadata,
  newStore,
  noise,
  scratchDir,
} from './scratch.js';

const silent = { onPlan: () => {}, progress: () => {} };

const contents = () => ({
  'ram@0x0': noise(1, 40),
  disk0: Buffer.concat([noise(2, 600), Buffer.alloc(700 * PAGE_BYTES), noise(3, 20)]),
  disk1: noise(4, 30).subarray(0, 29 * PAGE_BYTES + 1024),
});

type Contents = Record<string, Buffer>;

async function saveWith(
  store: Store,
  regions: Contents,
  metadata: SnapshotMetadata,
  parent: string | null = null,
  only?: Record<string, number[]>,
): Promise<string> {
  const session = await store.beginSave({ regions: basedOn(parent, Object.keys(regions)) });
  await session.store(new MemorySource(regions, only));
  return (await session.commit(metadata)).id;
}

const sizesOf = (regions: Contents) => ({
  memoryBytes: regions['ram@0x0']?.length ?? 0,
  diskBytes: (regions.disk0?.length ?? 0) + (regions.disk1?.length ?? 0),
});

const saveMachine = (
  store: Store,
  regions: Contents,
  parent: string | null = null,
  only?: Record<string, number[]>,
) =>
  saveWith(store, regions, machineMetadata({ tags: parent ? [] : ['m'], ...sizesOf(regions) }), parent, only);

const saveDisks = (store: Store, regions: Contents, tag = 'm-disk') =>
  saveWith(store, regions, diskMetadata({ tags: tag === null ? [] : [tag], ...sizesOf(regions) }));

describe('a snapshot with disks', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const kind of ['machine', 'disk'] as const)
    describe(`of kind ${kind}`, () => {
      const regionsOf = (): Contents => {
        const { 'ram@0x0': ram, ...disks } = contents();
        return kind === 'machine' ? { 'ram@0x0': ram, ...disks } : disks;
      };
      const saved = (store: Store): Promise<string> =>
        kind === 'machine' ? saveMachine(store, regionsOf()) : saveDisks(store, regionsOf());

      it('is listed, checked, exported, imported and copied with all its bytes', async function () {
        const { store, dir } = newStore(this);
        const id = await saved(store);
        const { diskBytes, memoryBytes } = sizesOf(regionsOf());
        const { kind: listedKind, ...listed } = store.find(id);
        assert.deepEqual([listedKind, listed.diskBytes, listed.memoryBytes], [kind, diskBytes, memoryBytes]);
        assert.deepEqual(await load(store, id), regionsOf());
        assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
        assert.equal(store.stats().logicalBytes, diskBytes + memoryBytes);

        const to = join(scratchDir(this), 'out');
        await exportSnapshot({ ...silent, storeDir: dir, ref: id, to });
        const { store: imported, dir: importedDir } = newStore(this);
        imported.close();
        await importSnapshots({ ...silent, storeDir: importedDir, from: to });
        const { store: copied, dir: copiedDir } = newStore(this);
        copied.close();
        await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: copiedDir, refs: [id] });
        for (const each of [to, importedDir, copiedDir]) {
          const there = Store.open(each, { write: false });
          assert.deepEqual(await load(there, id), regionsOf());
          assert.deepEqual([there.find(id).kind, there.find(id).diskBytes], [kind, diskBytes]);
          assert.deepEqual(await there.check({ readData: true }), { ok: true, problems: [] });
          there.close();
        }
      });

      it('is found again by repair, which names what is lost of a disk', async function () {
        const { store, dir } = newStore(this);
        const id = await saved(store);
        store.close();
        for (const suffix of ['', '-wal', '-shm']) rmSync(join(dir, `store.db${suffix}`), { force: true });
        assert.deepEqual((await Store.repair(dir)).lost, []);
        const [pack] = readdirSync(join(dir, 'packs'));
        const path = join(dir, 'packs', pack!);
        const bytes = readFileSync(path);
        // A page in the middle of disk0 is in the middle of the pack.
        bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 100);
        writeFileSync(path, bytes);
        const { lost } = await Store.repair(dir);
        assert.deepEqual([...new Set(lost.map(({ region }) => region))], ['disk0']);
        assert.equal(lost[0]!.snapshot, id);
        const { fromBytes, toBytes } = lost[0]!;
        const repaired = Store.open(dir, { write: false });
        assert.equal(repaired.find(id).kind, kind);
        await assert.rejects(repaired.getDisk(id, 0, join(scratchDir(this), 'disk0')), { code: 'DAMAGED' });
        // The other disk is whole.
        const other = join(scratchDir(this), 'disk1');
        await repaired.getDisk(id, 1, other);
        assert.ok(readFileSync(other).equals(contents().disk1));
        assert.ok(fromBytes < toBytes && toBytes <= 600 * PAGE_BYTES);
        repaired.close();
      });

      it('gives single disks, with their holes', async function () {
        const { store } = newStore(this);
        const id = await saved(store);
        const dir = mkdtempSync(join(tmpdir(), 'livesnap-disk-'));
        try {
          for (const [number, bytes] of [contents().disk0, contents().disk1].entries()) {
            const path = join(dir, `disk${number}`);
            assert.deepEqual(await store.getDisk(id, number, path), { bytes: bytes.length });
            assert.ok(readFileSync(path).equals(bytes));
          }
          assert.ok(statSync(join(dir, 'disk0')).blocks * 512 < 700 * PAGE_BYTES);
          const stream = new PassThrough();
          const chunks: Buffer[] = [];
          stream.on('data', (chunk) => chunks.push(chunk));
          await store.getDisk(id, 1, stream);
          assert.ok(Buffer.concat(chunks).equals(contents().disk1));
          await assert.rejects(store.getDisk(id, 2, join(dir, 'disk2')), { code: 'NO_SUCH_REGION' });
          await assert.rejects(store.getDisk(id, null, join(dir, 'disk2')), { code: 'USAGE' });
          await assert.rejects(store.get(id, join(dir, 'disk2')), { code: 'USAGE' });
          assert.ok(!existsSync(join(dir, 'disk2')));
        } finally {
          rmSync(dir, { recursive: true });
        }
      });
    });

  it('gives its only disk without a number, also to get', async function () {
    const { store } = newStore(this);
    const { disk0 } = contents();
    const disk = await saveDisks(store, { disk0 });
    const machine = await saveMachine(store, { 'ram@0x0': noise(1, 1), disk0 });
    const path = join(scratchDir(this), 'disk');
    await store.get(disk, path);
    assert.ok(readFileSync(path).equals(disk0));
    await store.getDisk(machine, null, path);
    assert.ok(readFileSync(path).equals(disk0));
    const diskless = await saveWith(store, { 'ram@0x0': noise(1, 1) }, machineMetadata());
    await assert.rejects(store.getDisk(diskless, null, path), { code: 'NO_SUCH_REGION' });
    const file = await store.put(path, { tags: [], name: null });
    await assert.rejects(store.getDisk(file.id, null, path), { code: 'USAGE' });
  });

  it('fills only the regions that the sink lists', async function () {
    const { store } = newStore(this);
    const regions = contents();
    const id = await saveMachine(store, regions);
    const open = await store.openSnapshot(id);
    const wanted = open.regions.filter(({ name }) => name !== 'disk0');
    const sink = new MemorySink(wanted);
    const totals = new Set<number | null>();
    await open.fill(sink, (_, total) => totals.add(total));
    assert.deepEqual(sink.contents, { 'ram@0x0': regions['ram@0x0'], disk1: regions.disk1 });
    assert.deepEqual([...totals], [70 * PAGE_BYTES]);
    const none = new MemorySink([]);
    await open.fill(none);
    await assert.rejects(open.fill(new MemorySink([{ name: 'disk7', sizeBytes: 4096 }])), {
      code: 'BAD_STATE',
    });
    open.close();
  });

  it('does not read what it does not fill', async function () {
    const { store, dir } = newStore(this);
    const regions = contents();
    const parts: string[] = [];
    for (const [name, bytes] of Object.entries(regions))
      parts.push(await saveWith(store, { [name]: bytes }, machineMetadata()));
    const session = await store.beginSave({
      regions: Object.keys(regions).map((region, i) => ({
        region,
        bases: [{ snapshot: parts[i]!, region }],
      })),
    });
    await session.store(new MemorySource(regions, {}));
    const { id } = await session.commit(machineMetadata());
    const packOfDisk0 = readdirSync(join(dir, 'packs')).sort()[1]!;
    writeFileSync(join(dir, 'packs', packOfDisk0), 'gone');
    const open = await store.openSnapshot(id);
    const sink = new MemorySink(open.regions.filter(({ name }) => name !== 'disk0'));
    await open.fill(sink);
    assert.deepEqual(sink.contents, { 'ram@0x0': regions['ram@0x0'], disk1: regions.disk1 });
    await assert.rejects(open.fill(new MemorySink(open.regions)), { code: 'DAMAGED' });
    open.close();
  });
});

describe('the difference of two snapshots', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is counted in pages and bytes, with the ranges', async function () {
    const { store } = newStore(this);
    const before = contents();
    const a = await saveMachine(store, before);
    const after = contents();
    after.disk0.set(noise(9, 2), 5 * PAGE_BYTES);
    after.disk0.fill(0, 599 * PAGE_BYTES, 600 * PAGE_BYTES);
    after.disk0.set(noise(10, 1), 1000 * PAGE_BYTES);
    after.disk1.set(noise(11, 1).subarray(0, 1024), 29 * PAGE_BYTES);
    const b = await saveMachine(store, after, a, { disk0: [5, 6, 599, 1000], disk1: [29] });
    const kib = (page: number): number => page * PAGE_BYTES;
    const expected = [
      {
        ...{ region: 'ram@0x0', otherRegion: 'ram@0x0', sizeBytes: [kib(40), kib(40)] },
        ...{ pages: 0, bytes: 0, ranges: [] },
      },
      {
        region: 'disk0',
        otherRegion: 'disk0',
        sizeBytes: [kib(1320), kib(1320)],
        pages: 4,
        bytes: 4 * PAGE_BYTES,
        ranges: [
          { fromBytes: kib(5), toBytes: kib(7) },
          { fromBytes: kib(599), toBytes: kib(600) },
          { fromBytes: kib(1000), toBytes: kib(1001) },
        ],
      },
      {
        region: 'disk1',
        otherRegion: 'disk1',
        sizeBytes: [before.disk1.length, before.disk1.length],
        pages: 1,
        bytes: 1024,
        ranges: [{ fromBytes: kib(29), toBytes: before.disk1.length }],
      },
    ];
    assert.deepEqual(store.diff(a, b), expected);
    assert.deepEqual(store.diff(b, a), expected);
    assert.deepEqual(
      store.diff('m', 'm').map(({ pages }) => pages),
      [0, 0, 0],
    );
    assert.deepEqual(
      store.show(b).regions.map(({ changedPages }) => changedPages),
      [0, 4, 1],
    );
    assert.deepEqual(
      store.show(a).regions.map(({ changedPages }) => changedPages),
      [null, null, null],
    );
  });

  it('is not shown if the parent is damaged', async function () {
    const { store, dir } = newStore(this);
    const a = await saveMachine(store, contents());
    const b = await saveMachine(store, contents(), a, {});
    assert.deepEqual(
      store.show(b).regions.map(({ changedPages }) => changedPages),
      [0, 0, 0],
    );
    // Removed by other means, or damaged: show reports no more than it knows.
    writeFileSync(join(dir, 'snapshots', a), 'gone');
    assert.throws(() => store.diff(a, b), { code: 'DAMAGED' });
    store.remove([a]);
    assert.deepEqual(
      store.show(b).regions.map(({ changedPages }) => changedPages),
      [null, null, null],
    );
  });

  it('covers regions that only one has, and ends that only one reaches', async function () {
    const { store } = newStore(this);
    const disk0 = noise(1, 10);
    const a = await saveDisks(store, { disk0, disk1: noise(2, 3) }, 'a');
    const longer = Buffer.concat([disk0, Buffer.alloc(2 * PAGE_BYTES), noise(3, 1)]);
    const b = await saveDisks(store, { disk0: longer, disk2: Buffer.alloc(PAGE_BYTES) }, 'b');
    const found = store.diff(a, b).map(({ region, sizeBytes, pages }) => [region, ...sizeBytes, pages]);
    assert.deepEqual(found, [
      ['disk0', 10 * PAGE_BYTES, 13 * PAGE_BYTES, 1],
      ['disk1', 3 * PAGE_BYTES, null, 3],
      ['disk2', null, PAGE_BYTES, 0],
    ]);
    assert.throws(() => store.diff('a', 'none'), { code: 'NO_SUCH_SNAPSHOT' });
  });

  it('is that of two regions, also with different names, sizes and kinds', async function () {
    const { store } = newStore(this);
    const image = noise(1, 600).subarray(0, 599 * PAGE_BYTES + 100);
    await store.put(Readable.from([image]), { tags: ['debian'], name: null });
    const disk0 = Buffer.concat([image, Buffer.alloc(40 * PAGE_BYTES - 100)]);
    disk0.set(noise(2, 2), 5 * PAGE_BYTES);
    disk0.set(noise(3, 1), 620 * PAGE_BYTES);
    await saveMachine(store, { 'ram@0x0': noise(4, 3), disk0, disk1: image });
    await saveDisks(store, { disk0: image }, 'disk');
    const bytesOf = (page: number): number => page * PAGE_BYTES;
    const expected = {
      ...{ sizeBytes: [image.length, disk0.length], pages: 3, bytes: 3 * PAGE_BYTES },
      ranges: [
        { fromBytes: bytesOf(5), toBytes: bytesOf(7) },
        { fromBytes: bytesOf(620), toBytes: bytesOf(621) },
      ],
    };
    const fileAndDisk = [{ region: 'file', otherRegion: 'disk0', ...expected }];
    assert.deepEqual(store.diff('debian', 'm', [null, 'disk0']), fileAndDisk);
    assert.deepEqual(store.diff('debian', 'm', ['file', 'disk0']), fileAndDisk);
    assert.deepEqual(store.diff('m', 'debian', ['disk0', null]), [
      {
        ...{ region: 'disk0', otherRegion: 'file', ...expected },
        sizeBytes: [disk0.length, image.length],
      },
    ]);
    const found = (a: string, b: string, regions: [string | null, string | null]) =>
      store.diff(a, b, regions).map(({ region, otherRegion, pages }) => [region, otherRegion, pages]);
    assert.deepEqual(found('debian', 'm', [null, 'disk1']), [['file', 'disk1', 0]]);
    assert.deepEqual(found('m', 'm', ['disk0', 'disk1']), [['disk0', 'disk1', 3]]);
    assert.deepEqual(found('m', 'm', ['ram@0x0', 'disk1']), [['ram@0x0', 'disk1', 600]]);
    // Without a name, a snapshot that is no file has the region of the same name.
    assert.deepEqual(found('m', 'disk', ['disk0', null]), [['disk0', 'disk0', 3]]);
    assert.deepEqual(found('disk', 'm', [null, 'disk0']), [['disk0', 'disk0', 3]]);
  });

  it('is refused for a region that there is none of, with those that there are', async function () {
    const { store } = newStore(this);
    const id = await saveMachine(store, contents());
    const { id: file } = await store.put(Readable.from(['text']), { tags: ['f'], name: null });
    const disk = await saveDisks(store, { disk0: noise(1, 3) });
    const all = 'It has: ram@0x0, disk0, disk1.';
    for (const [a, b, regions, snapshot, name, hint] of [
      ['m', 'f', ['disk7', null], id, 'disk7', all],
      ['f', 'm', [null, 'file'], id, 'file', all],
      ['m', 'm', ['disk0', 'disk7'], id, 'disk7', all],
      ['f', 'm', ['disk0', 'disk0'], file, 'disk0', 'It has: file.'],
      ['m', 'm-disk', ['disk1', null], disk, 'disk1', 'It has: disk0.'],
    ] as const)
      assert.throws(() => store.diff(a, b, regions), {
        code: 'NO_SUCH_REGION',
        message: `snapshot ${snapshot} has no region "${name}"`,
        hint,
      });
  });

  it('is none where equal pages are stored in two places, or fingerprints collide', async function () {
    const dir = scratchDir(this);
    const store = Store.open(join(dir, 's'), { write: true, create: true, fingerprintBits: 4 });
    const pages = Array.from({ length: 60 }, (_, i) => noise(i + 1, 1));
    const a = await saveDisks(store, { disk0: Buffer.concat(pages) }, 'a');
    const b = await saveDisks(store, { disk0: Buffer.concat(pages) }, 'b');
    const c = await saveDisks(store, { disk0: Buffer.concat([...pages].reverse()) }, 'c');
    assert.equal(store.diff(a, b)[0]!.pages, 0);
    assert.equal(store.diff(a, c)[0]!.pages, 60);
    store.close();
  });
});

describe('an index of the first version', () => {
  const Database = loadSqlite();

  afterEach(function () {
    dropScratch(this);
  });

  it('is read as it is, and gets room for snapshots of disks when it is opened for writing', async function () {
    const dir = copyOfGolden(this, 'v1/whole');
    const rows = (): unknown => {
      const database = new Database(join(dir, 'store.db'), { readonly: true });
      try {
        return [
          database.pragma('user_version', { simple: true }),
          database.prepare('SELECT id, kind, createdAt, storedBytes FROM snapshots ORDER BY id').all(),
          database.prepare('SELECT * FROM tags ORDER BY label').all(),
        ];
      } finally {
        database.close();
      }
    };
    const [, snapshots, tags] = rows() as [number, unknown[], unknown[]];
    assert.ok(snapshots.length > 3 && tags.length > 1);
    const reading = Store.open(dir, { write: false });
    assert.equal(reading.list().length, goldenSnapshots('v1/whole').length);
    assert.equal((await reading.check({ readData: false })).ok, true);
    reading.close();
    assert.deepEqual(rows(), [1, snapshots, tags]);
    const writing = Store.open(dir, { write: true });
    const id = await saveDisks(writing, { disk0: noise(1, 3) });
    writing.remove([id]);
    writing.close();
    assert.deepEqual(rows(), [5, snapshots, tags]);
  });

  it('that has a tag without its snapshot is damaged when it is opened for writing, until repair', async function () {
    const dir = copyOfGolden(this, 'v1/whole');
    const database = new Database(join(dir, 'store.db'));
    database.pragma('foreign_keys = OFF');
    database
      .prepare("INSERT INTO tags (label, snapshot, digest) VALUES ('gone', ?, '0123456789abcdef')")
      .run('e'.repeat(32));
    database.close();
    assert.throws(() => Store.open(dir, { write: true }), { code: 'DAMAGED' });
    Store.open(dir, { write: false }).close();
    assert.deepEqual((await Store.repair(dir)).lost, []);
    const store = Store.open(dir, { write: true });
    assert.equal(store.list().length, goldenSnapshots('v1/whole').length);
    store.close();
  });
});
