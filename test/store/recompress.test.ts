/** `gc --recompress`: packs are compressed anew by LZ4-HC, and nothing else about them changes. */
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pageOps } from '../../src/native/pages.js';
import { readRegion, regionReaderError } from '../../src/native/region-reader.js';
import { type OpenRegion, PAGE_BYTES } from '../../src/page-stream.js';
import { openShared } from '../../src/store/disk/file-locks.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import type { GcOptions, GcResult, Recompression } from '../../src/store/gc/gc.js';
import { Effort } from '../../src/store/pack/pack-format.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { Store } from '../../src/store/store.js';
import { filesOf } from '../fixtures/golden-stores.js';
import { Database } from '../sqlite.js';
import { IndependentReader } from './independent-reader.js';
import {
  dropScratch,
  fingerprintOf,
  flipBit,
  load,
  mountSmall,
  newStore,
  noise,
  save,
  scratchDir,
  textPages,
} from './scratch.js';

type Contents = Record<string, Buffer>;

const recompress = async (
  store: Store,
  options: Partial<GcOptions> = {},
): Promise<GcResult & { recompressed: Recompression }> => {
  const result = await store.gc({ dryRun: false, recompress: true, ...options });
  assert.ok(result.recompressed);
  return { ...result, recompressed: result.recompressed };
};

const NOTHING_LEFT = { held: 0, damaged: 0, noSpace: 0, overLimit: 0, interrupted: 0 };
const NOTHING_DONE = { packs: 0, beforeBytes: 0, afterBytes: 0, leftPacks: NOTHING_LEFT };

const packsOf = (dir: string): string[] => readdirSync(join(dir, 'packs')).sort();

function readPack<T>(dir: string, name: string, read: (reader: PackReader) => T): T {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  try {
    return read(reader);
  } finally {
    reader.close();
  }
}

const effortOf = (dir: string, name: string): number => readPack(dir, name, ({ footer }) => footer.effort);

const framesOf = (dir: string, name: string): Buffer =>
  readPack(dir, name, ({ footer }) =>
    readFileSync(join(dir, 'packs', name)).subarray(32, footer.trailerOffset),
  );

/** Text of which LZ4-HC makes less than LZ4. */
const pages = (seed: number, count = 300): Buffer => textPages(seed, count);

async function requireAll(store: Store, expected: ReadonlyMap<string, Contents>): Promise<void> {
  for (const [id, contents] of expected) assert.deepEqual(await load(store, id), contents);
  const { problems } = await store.check({ readData: true });
  assert.deepEqual(problems, []);
}

/** Three snapshots, two of which share data. */
async function fill(store: Store): Promise<Map<string, Contents>> {
  const expected = new Map<string, Contents>();
  const keep = async (contents: Contents, parent: string | null = null): Promise<string> => {
    const { id } = await save(store, contents, { parent });
    expected.set(id, contents);
    return id;
  };
  const first = { 'ram@0x0': Buffer.concat([pages(1), noise(1, 40)]), disk0: pages(2, 100) };
  const id = await keep(first);
  const changed = Buffer.from(first['ram@0x0']);
  pages(3, 200).copy(changed, 50 * PAGE_BYTES);
  await keep({ 'ram@0x0': changed, disk0: first.disk0 }, id);
  await keep({ 'ram@0x0': Buffer.concat([pages(4, 250), pages(1, 30)]) });
  return expected;
}

/** Calls `work` as soon as the next generation of the pack is being written. */
async function onceWritten<T>(dir: string, name: string, work: () => T): Promise<T> {
  const next = join(dir, 'packs', name.replace('-0.pack', '-1.pack'));
  while (!existsSync(next)) await new Promise((resolve) => setImmediate(resolve));
  return work();
}

/** SCHED_IDLE (sched(7)). */
const SCHED_IDLE = 5;

/** How many threads of this process use only idle time: field 41 of /proc/TASK/stat (proc(5)). */
const idleThreads = (): number =>
  readdirSync('/proc/self/task').filter((task) => {
    const stat = readFileSync(`/proc/self/task/${task}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')')).split(' ')[39]) === SCHED_IDLE;
  }).length;

describe('gc --recompress', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('makes packs smaller, keeps every snapshot, and finds nothing to do the second time', async function () {
    const { store, dir } = newStore(this);
    const expected = await fill(store);
    const names = packsOf(dir);
    assert.equal(names.length, 3);
    const before = names.map((name) => statSync(join(dir, 'packs', name)).size);
    const { recompressed, freedBytes, removedChunks } = await recompress(store);
    const after = packsOf(dir).map((name) => statSync(join(dir, 'packs', name)).size);
    assert.deepEqual(
      packsOf(dir),
      names.map((name) => name.replace('-0.', '-1.')),
    );
    for (const [i, bytes] of after.entries())
      assert.ok(bytes < 0.97 * before[i]!, `${before[i]} to ${bytes}`);
    const sum = (sizes: number[]): number => sizes.reduce((a, b) => a + b);
    assert.deepEqual(recompressed, {
      ...{ packs: 3, beforeBytes: sum(before), afterBytes: sum(after), leftPacks: NOTHING_LEFT },
    });
    assert.equal(removedChunks, 0);
    // The segments are merged, too, and get a filter.
    assert.ok(Math.abs(freedBytes - (sum(before) - sum(after))) < 8192, `${freedBytes}`);
    for (const name of packsOf(dir)) assert.equal(effortOf(dir, name), Effort.high);
    await requireAll(store, expected);
    const independent = new IndependentReader(dir);
    for (const [id, contents] of expected) assert.deepEqual(independent.read(id).regions, contents);
    const files = filesOf(join(dir, 'packs'));
    assert.deepEqual((await recompress(store)).recompressed, NOTHING_DONE);
    assert.deepEqual(filesOf(join(dir, 'packs')), files);
  });

  it('rewrites packs in threads that use only idle time, if asked, and these end', async function () {
    const { store, dir } = newStore(this);
    const expected = await fill(store);
    const seen: number[] = [];
    const note = (): void => void seen.push(idleThreads());
    await store.gc({ dryRun: true, recompress: true }, note);
    assert.deepEqual(new Set(seen), new Set([0]));
    seen.length = 0;
    const { recompressed } = await store.gc({ dryRun: false, recompress: true, idle: true }, note);
    assert.deepEqual([recompressed!.packs, packsOf(dir).length], [3, 3]);
    // The Worker, and at least one thread that encodes for it.
    assert.ok(seen.length === 3 && seen.every((threads) => threads >= 2), `${seen}`);
    await requireAll(store, expected);
    while (idleThreads() > 0) await sleep(20); // those that encode end after a second without work
  });

  it('leaves chunks where later saves and an index that is built anew find them', async function () {
    const { store, dir } = newStore(this);
    const expected = await fill(store);
    await recompress(store);
    const [contents] = expected.values();
    assert.equal((await save(store, contents!)).newChunks, 0);
    store.close();
    for (const name of readdirSync(dir)) if (name.startsWith('store.db')) rmSync(join(dir, name));
    assert.deepEqual((await Store.repair(dir)).lost, []);
    const repaired = Store.open(dir, { write: true });
    try {
      await requireAll(repaired, expected);
      assert.equal((await save(repaired, contents!)).newChunks, 0);
      assert.deepEqual((await recompress(repaired)).recompressed, NOTHING_DONE);
    } finally {
      repaired.close();
    }
  });

  it('drops dead chunks in the same rewrite, even a few', async function () {
    const { store, dir } = newStore(this);
    const kept = pages(1, 400);
    const { id: gone } = await save(store, { 'ram@0x0': Buffer.concat([kept, pages(2, 5)]) });
    const { id } = await save(store, { 'ram@0x0': kept });
    store.remove([gone]);
    const { removedChunks } = await recompress(store);
    assert.equal(removedChunks, 5 + 2); // with the manifest block
    assert.equal(
      readPack(dir, packsOf(dir)[0]!, ({ numbers }) => numbers.length),
      400,
    );
    await requireAll(store, new Map([[id, { 'ram@0x0': kept }]]));
    assert.deepEqual(await store.gc({ dryRun: true }), {
      ...{ removedChunks: 0, freedBytes: 0, recompressed: null },
    });
  });

  it('marks a pack that cannot become smaller, and leaves small ones alone', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 100) });
    const { id: small } = await save(store, { 'ram@0x0': pages(1, 20) });
    const [large, other] = packsOf(dir) as [string, string];
    assert.ok(statSync(join(dir, 'packs', other)).size < 64 << 10);
    const frames = framesOf(dir, large);
    const { recompressed } = await recompress(store);
    assert.equal(recompressed.packs, 1);
    assert.deepEqual(packsOf(dir), [large.replace('-0.', '-1.'), other]);
    assert.equal(effortOf(dir, packsOf(dir)[0]!), Effort.high);
    // The frame of the manifest block is the last one, and may be smaller.
    assert.ok(framesOf(dir, packsOf(dir)[0]!).subarray(0, 400_000).equals(frames.subarray(0, 400_000)));
    assert.deepEqual((await recompress(store)).recompressed, NOTHING_DONE);
    const expected = new Map([
      [id, { 'ram@0x0': noise(1, 100) }],
      [small, { 'ram@0x0': pages(1, 20) }],
    ]);
    await requireAll(store, expected);
  });

  it('is kept by a later gc that rewrites the pack', async function () {
    const { store, dir } = newStore(this);
    const kept = pages(1);
    const { id: gone } = await save(store, { 'ram@0x0': Buffer.concat([kept, pages(2)]) });
    const { id } = await save(store, { 'ram@0x0': kept });
    await recompress(store);
    store.remove([gone]);
    const would = await store.gc({ dryRun: true });
    assert.deepEqual(await store.gc({ dryRun: false }), would);
    assert.ok(would.removedChunks > 300);
    assert.deepEqual(
      packsOf(dir).map((name) => [name.slice(8), effortOf(dir, name)]),
      [
        ['-2.pack', Effort.high],
        ['-0.pack', Effort.fast],
      ],
    );
    await requireAll(store, new Map([[id, { 'ram@0x0': kept }]]));
  });

  it('is read natively by regions that are open, before and after', async function () {
    const { store } = newStore(this);
    const disk0 = Buffer.concat([pages(1, 200), noise(2, 20), pages(3, 200)]);
    const { id } = await save(store, { disk0 });
    const opened = async (): Promise<OpenRegion> => {
      const snapshot = await store.openSnapshot(id);
      const region = await snapshot.openRegion('disk0');
      snapshot.close();
      return region;
    };
    const requireRegion = ({ reader }: OpenRegion): void => {
      const into = Buffer.alloc(disk0.length);
      assert.equal(readRegion(reader, 0, into), 0, JSON.stringify(regionReaderError(reader)));
      assert.ok(into.equals(disk0));
    };
    const before = await opened();
    assert.equal((await recompress(store)).recompressed.packs, 1);
    const after = await opened();
    for (const region of [before, after]) {
      requireRegion(region);
      region.close();
    }
  });

  // A later livesnap may have better ways.
  it('leaves packs with a mark that it does not know, which every reader ignores', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': pages(1) };
    const { id } = await save(store, contents);
    const path = join(dir, 'packs', packsOf(dir)[0]!);
    const bytes = readFileSync(path);
    const footer = bytes.subarray(-64);
    footer.writeUInt16LE(7, 28);
    pageOps.checksum(footer, 0, 56, 0, 0, footer.subarray(56));
    writeFileSync(path, bytes);
    assert.deepEqual((await recompress(store)).recompressed, NOTHING_DONE);
    await requireAll(store, new Map([[id, contents]]));
    assert.deepEqual(new IndependentReader(dir).read(id).regions, contents);
  });

  it('is estimated by a dry run, which changes nothing', async function () {
    const { store, dir } = newStore(this);
    await fill(store);
    await save(store, { 'ram@0x0': pages(9, 3000) });
    const files = (): object => ({ ...filesOf(dir), 'store.db-shm': null }); // readers change it
    const before = files();
    const would = await recompress(store, { dryRun: true });
    assert.deepEqual(files(), before);
    const { recompressed } = await recompress(store);
    assert.equal(would.recompressed.packs, recompressed.packs);
    assert.equal(would.recompressed.beforeBytes, recompressed.beforeBytes);
    const saved = ({ beforeBytes, afterBytes }: Recompression): number => beforeBytes - afterBytes;
    const ratio = saved(would.recompressed) / saved(recompressed);
    assert.ok(ratio > 0.8 && ratio < 1.25, `${ratio}`);
  });

  it('rewrites at most maxRepackBytes, and the rest in later runs', async function () {
    const { store, dir } = newStore(this);
    const expected = await fill(store);
    const sizes = packsOf(dir).map((name) => statSync(join(dir, 'packs', name)).size);
    const once = await recompress(store, { maxRepackBytes: sizes[0]! });
    assert.equal(once.recompressed.packs, 1);
    assert.deepEqual(once.recompressed.leftPacks, { ...NOTHING_LEFT, overLimit: 2 });
    assert.equal((await recompress(store)).recompressed.packs, 2);
    await requireAll(store, expected);
  });

  it('stops after the pack that it is at when it is aborted; what is done stays done', async function () {
    const { store, dir } = newStore(this);
    const expected = await fill(store);
    const abort = new AbortController();
    const result = store.gc({ dryRun: false, recompress: true, endEarly: abort.signal }, () => abort.abort());
    const { recompressed } = await result;
    assert.equal(recompressed!.packs, 1);
    assert.deepEqual(recompressed!.leftPacks, { ...NOTHING_LEFT, interrupted: 2 });
    assert.deepEqual(
      packsOf(dir).map((name) => name.slice(8)),
      ['-1.pack', '-0.pack', '-0.pack'],
    );
    await requireAll(store, expected);
    assert.equal((await recompress(store)).recompressed.packs, 2);
  });

  it('leaves a pack that a session holds, also when it began to hold it meanwhile', async function () {
    const { store, dir } = newStore(this);
    const expected = new Map([[(await save(store, { 'ram@0x0': pages(1) })).id, { 'ram@0x0': pages(1) }]]);
    const [name] = packsOf(dir) as [string];
    const path = join(dir, 'packs', name);
    const held = { ...NOTHING_DONE, leftPacks: { ...NOTHING_LEFT, held: 1 } };
    let fd = openShared(path)!;
    assert.deepEqual((await recompress(store)).recompressed, held);
    closeSync(fd);
    const running = recompress(store);
    fd = await onceWritten(dir, name, () => openShared(path)!);
    assert.ok(fd, 'a session can hold the pack while gc rewrites it');
    assert.deepEqual((await running).recompressed, held);
    assert.deepEqual(packsOf(dir), [name]);
    closeSync(fd);
    assert.equal((await recompress(store)).recompressed.packs, 1);
    await requireAll(store, expected);
  });

  it('leaves a pack of which a save needed a dead chunk meanwhile', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': Buffer.concat([pages(1), pages(2)]) };
    const { id } = await save(store, contents);
    await save(store, { 'ram@0x0': pages(1) });
    const [name] = packsOf(dir) as [string];
    // A removed snapshot that comes back, as a copy of it would, stands for the save.
    const file = join(dir, 'snapshots', id);
    const bytes = readFileSync(file);
    const index = new Database(join(dir, 'store.db'));
    const row = index.prepare('SELECT * FROM snapshots WHERE id = ?').get(id) as Record<string, unknown>;
    store.remove([id]);
    const running = recompress(store);
    await onceWritten(dir, name, () => {
      const columns = Object.keys(row);
      writeFileSync(file, bytes);
      index
        .prepare(`INSERT INTO snapshots (${columns}) VALUES (${columns.map((column) => `@${column}`)})`)
        .run(row);
    });
    index.close();
    const { recompressed } = await running;
    assert.equal(recompressed.leftPacks.held, 1);
    assert.ok(packsOf(dir).includes(name));
    assert.deepEqual(await load(store, id), contents);
    assert.deepEqual((await store.check({ readData: true })).problems, []);
  });

  it('leaves everything as it was on a full disk, and works with space for one pack', async function () {
    const dir = join(scratchDir(this), 'small');
    mkdirSync(dir);
    mountSmall(this, dir, 8 << 20);
    const store = Store.open(join(dir, 'store'), { write: true, create: true });
    try {
      const expected = new Map<string, Contents>();
      for (const seed of [1, 2]) {
        const contents = { 'ram@0x0': pages(seed, 1500) };
        expected.set((await save(store, contents)).id, contents);
      }
      const { bavail, bsize } = statfsSync(dir);
      const filler = join(dir, 'filler');
      writeFileSync(filler, Buffer.alloc(bavail * bsize - (300 << 10)));
      const files = filesOf(join(store.dir, 'packs'));
      const { recompressed } = await recompress(store);
      assert.deepEqual(recompressed, {
        ...NOTHING_DONE,
        leftPacks: { ...NOTHING_LEFT, noSpace: 2 },
      });
      assert.deepEqual(filesOf(join(store.dir, 'packs')), files);
      await requireAll(store, expected);
      rmSync(filler);
      assert.equal((await recompress(store)).recompressed.packs, 2);
      await requireAll(store, expected);
    } finally {
      store.close();
    }
  });

  it('leaves a damaged pack as it is, and does the others', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': pages(1) });
    await save(store, { 'ram@0x0': Buffer.concat([pages(1), pages(2)]) });
    await save(store, { 'ram@0x0': pages(3) });
    store.remove([id]); // so that no snapshot has its blocks in the first pack
    const [first, second, third] = packsOf(dir) as [string, string, string];
    const path = join(dir, 'packs', first);
    flipBit(path, statSync(path).size - 60); // in the footer
    flipBit(join(dir, 'packs', second), 5000); // in a frame
    const { recompressed } = await recompress(store);
    assert.equal(recompressed.packs, 1);
    assert.deepEqual(recompressed.leftPacks, { ...NOTHING_LEFT, damaged: 2 });
    assert.deepEqual(packsOf(dir), [first, second, third.replace('-0.', '-1.')]);
  });

  it('keeps chunks that are lost, so that a later repair can heal them', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': pages(1) };
    const { id } = await save(store, contents);
    store.close();
    const [name] = packsOf(dir) as [string];
    flipBit(join(dir, 'packs', name), 5000);
    const { lost } = await Store.repair(dir);
    assert.equal(lost.length, 1);
    const repaired = Store.open(dir, { write: true });
    try {
      assert.equal((await recompress(repaired)).recompressed.packs, 1);
      assert.deepEqual(packsOf(dir), [name.replace('-0.', '-2.')]);
      assert.equal((await repaired.check({ readData: true })).problems.length, 1);
      await save(repaired, contents);
    } finally {
      repaired.close();
    }
    const healed = await Store.repair(dir);
    assert.deepEqual([healed.lost, healed.healedChunks], [[], 16]);
    const opened = Store.open(dir, { write: true });
    try {
      assert.deepEqual(await load(opened, id), contents);
      assert.equal((await recompress(opened)).recompressed.packs, 1);
      assert.deepEqual(await load(opened, id), contents);
    } finally {
      opened.close();
    }
  });

  // Its frames match their checksums.
  it('leaves a pack with a chunk that has another digest than it lists', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': pages(1) });
    const [name] = packsOf(dir) as [string];
    const pack = parsePackName(name)!;
    const raw = new Uint8Array(16 * PAGE_BYTES);
    const listed = readPack(dir, name, (reader) => ({
      ...reader.readIdentities(),
      pages: [...reader.frames].flatMap(({ chunks, flags }, i) => {
        reader.readFrame(i, raw);
        return Array.from({ length: chunks }, (_, chunk) => ({
          isManifest: (flags & 2) !== 0,
          bytes: raw.slice(chunk * PAGE_BYTES, (chunk + 1) * PAGE_BYTES),
        }));
      }),
    }));
    const path = join(dir, 'packs', name);
    rmSync(path);
    const writer = new PackWriter(pageOps, dir, pack.number, pack.generation);
    listed.pages.forEach(({ bytes, isManifest }, i) => {
      if (i === 100) bytes[7]! ^= 1;
      const digest = listed.digests.subarray(i * 32, (i + 1) * 32);
      writer.appendNumbered(bytes, 0, fingerprintOf(bytes), isManifest, i, digest);
    });
    writer.seal();
    writer.close();
    const before = readFileSync(path);
    const { recompressed } = await recompress(store);
    assert.deepEqual(recompressed, { ...NOTHING_DONE, leftPacks: { ...NOTHING_LEFT, damaged: 1 } });
    assert.deepEqual(packsOf(dir), [name]);
    assert.ok(readFileSync(path).equals(before));
  });
});
