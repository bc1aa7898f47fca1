import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LivesnapError } from '../../src/errors.js';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { Store } from '../../src/store/store.js';
import {
  dropScratch,
  load,
  MemorySource,
  machineMetadata,
  mountSmall,
  newStore,
  noise,
  save,
  scratchDir,
  seeded,
  textPages,
} from './scratch.js';

const childFile = fileURLToPath(new URL('./saving-child.js', import.meta.url));

const filesOf = (dir: string): string[] =>
  ['packs', 'snapshots', 'tags'].flatMap((folder) =>
    readdirSync(join(dir, folder)).map((name) => `${folder}/${name}`),
  );

function fingerprintOf(page: Uint8Array): Uint8Array {
  const out = new Uint8Array(8);
  pageOps.hashPages(page, 1, out);
  return out;
}

/** Changes one bit of a file. */
function flip(path: string, offset: number, bit = 0): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

describe('what a store promises', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('1: nothing is visible before the commit, everything after it', async function () {
    const { store, dir } = newStore(this);
    const other = Store.open(dir, { write: false });
    const session = await store.beginSave({ parent: null });
    await session.store(new MemorySource({ 'ram@0x0': noise(1, 600) }));
    assert.deepEqual(other.list(), []);
    const { id } = await session.commit(machineMetadata());
    assert.deepEqual(
      other.list().map(({ id }) => id),
      [id],
    );
    assert.deepEqual(await load(other, id), { 'ram@0x0': noise(1, 600) });
    other.close();
  });

  for (const bits of [4, 1])
    it(`2: collisions do no harm (fingerprints of ${bits} bits)`, async function () {
      const { store } = newStore(this, bits);
      const ram = Buffer.concat([
        noise(1, 400),
        textPages(2, 300),
        Buffer.alloc(20 * PAGE_BYTES),
        noise(1, 400),
      ]);
      const first = await save(store, { 'ram@0x0': ram });
      ram.set(noise(7, 30), 200 * PAGE_BYTES);
      ram.set(noise(1, 2), 300 * PAGE_BYTES);
      const child = await save(store, { 'ram@0x0': ram }, { parent: first.id });
      assert.equal(child.parent, first.id);
      const full = await save(store, { disk: ram });
      assert.deepEqual(await load(store, child.id), { 'ram@0x0': ram });
      assert.deepEqual(await load(store, full.id), { disk: ram });
      assert.equal(child.unchangedPages, 1100 - 32);
      store.remove([first.id]);
      await store.gc({ dryRun: false });
      assert.deepEqual(await load(store, full.id), { disk: ram });
      assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
    });

  it('2: a chunk that cannot be read is no hit: the page is stored again', async function () {
    const { store, dir } = newStore(this);
    const ram = { 'ram@0x0': noise(1, 64) };
    const first = await save(store, ram);
    const [pack] = readdirSync(join(dir, 'packs'));
    flip(join(dir, 'packs', pack!), 100);
    await assert.rejects(load(store, first.id), { code: 'DAMAGED' });
    const second = await save(store, ram);
    assert.equal(second.newChunks, 16); // one frame
    assert.deepEqual(await load(store, second.id), ram);
  });

  it('3: zero pages are nowhere', async function () {
    const { store } = newStore(this);
    const result = await save(store, { 'ram@0x0': Buffer.alloc(64 << 20) });
    assert.deepEqual([result.pages, result.zeroPages, result.newChunks], [16384, 16384, 0]);
    assert.ok(result.storedBytes < 1024);
    assert.deepEqual([store.stats().packs, store.stats().chunks], [0, 0]);
  });

  it('4: the files rebuild the index', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 900);
    const a = await save(store, { 'ram@0x0': ram }, { tag: 'a' });
    ram.set(textPages(3, 100), 0);
    const b = await save(store, { 'ram@0x0': ram }, { parent: a.id, tag: 'b' });
    const gone = await save(store, { disk: noise(4, 300) });
    store.remove(['a', gone.id]);
    await store.gc({ dryRun: false }); // leaves a pack in its second generation
    assert.ok(readdirSync(join(dir, 'packs')).some((name) => parsePackName(name)!.generation > 0));
    await store.put(join(dir, 'lock'), { tag: 'file', name: null });
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
      // Chunks are found again, and numbers are not given twice.
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

  it('4: repair prefers the older of two generations, names what rm left, and sets aside what it cannot read', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 64);
    const a = await save(store, { 'ram@0x0': ram }, { tag: 'a' });
    const b = await save(store, { 'ram@0x0': noise(2, 64) });
    const aFile = readFileSync(join(dir, 'snapshots', a.id));
    const [firstPack] = readdirSync(join(dir, 'packs')).sort();
    // A gc that rewrote the pack, for a snapshot that is gone, and died before its commit.
    const rewritten = new PackWriter(pageOps, dir, parsePackName(firstPack!)!.number, 1);
    rewritten.append(ram, 0, fingerprintOf(ram.subarray(0, PAGE_BYTES)), false);
    rewritten.seal();
    store.remove([a.id]);
    writeFileSync(join(dir, 'snapshots', a.id), aFile); // an rm that died before its unlink
    writeFileSync(join(dir, 'tags', 'stray'), `${'0'.repeat(32)}\n`);
    flip(join(dir, 'snapshots', b.id), 40);
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

  it('finds out a pack that is whole but holds other pages', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 40) });
    const [name] = readdirSync(join(dir, 'packs'));
    const original = readFileSync(join(dir, 'packs', name!));
    const fingerprints = 40; // 40 pages, then the two halves of a manifest block
    const places = 41;
    const changes: Record<string, (pages: Buffer[]) => void> = {
      'a page': (pages) => {
        pages[0]![8]! ^= 1;
      },
      'a place': (pages) => {
        pages[places]![12]! ^= 1;
      },
      'a page and its fingerprint': (pages) => {
        pages[0]![8]! ^= 1;
        pages[fingerprints]!.set(fingerprintOf(pages[0]!));
      },
      'a page that is zero': (pages) => {
        pages[fingerprints]!.fill(0, 0, 8);
        pages[places]!.fill(0, 0, 8);
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      const reader = new PackReader(pageOps, dir, parsePackName(name!)!);
      const raw = new Uint8Array(16 * PAGE_BYTES);
      const pages = [...reader.frames].flatMap((frame, index) => {
        reader.readFrame(index, raw);
        return Array.from({ length: frame.chunks }, (_, i) =>
          Buffer.from(raw.slice(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)),
        );
      });
      reader.close();
      rmSync(join(dir, 'packs', name!));
      change(pages);
      const writer = new PackWriter(pageOps, dir, parsePackName(name!)!.number, 0);
      pages.forEach((bytes, i) => {
        writer.append(bytes, 0, fingerprintOf(bytes), i >= fingerprints);
      });
      writer.seal();
      await assert.rejects(load(store, id), { code: 'DAMAGED' }, what);
      writeFileSync(join(dir, 'packs', name!), original);
      await load(store, id);
    }
  });

  it('4: repair replaces an index that is garbage, and waits for nobody who has the store open', async function () {
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

  it('names damage by file, offset and snapshot, in a restore and in check', async function () {
    const { store, dir } = newStore(this);
    const mine = await save(store, { 'ram@0x0': noise(1, 100) });
    const other = await save(store, { 'ram@0x0': noise(2, 100) });
    const [pack] = readdirSync(join(dir, 'packs')).sort();
    const path = join(dir, 'packs', pack!);
    const frame = 32 + 3 * (16 + 32 + 65536); // header, three raw frames
    flip(path, frame + 500, 3);
    await assert.rejects(load(store, mine.id), (error: LivesnapError) => {
      assert.equal(error.code, 'DAMAGED');
      for (const part of [mine.id, `packs/${pack}`, String(frame)])
        assert.ok(error.message.includes(part), error.message);
      return true;
    });
    assert.deepEqual(await load(store, other.id), { 'ram@0x0': noise(2, 100) });
    assert.equal((await store.check({ readData: false })).ok, true);
    const { ok, problems } = await store.check({ readData: true });
    assert.equal(ok, false);
    assert.deepEqual(
      problems.map(({ file, offset, snapshots }) => ({ file, offset, snapshots })),
      [{ file: `packs/${pack}`, offset: frame, snapshots: [mine.id] }],
    );
    flip(path, frame + 500, 3);

    // The trailer and its footer, the header, the snapshot's file, a missing pack.
    const size = statSync(path).size;
    for (const offset of [3, 20, size - 3, size - 64 + 30, size - 70, size - 64 - 100 * 44]) {
      flip(path, offset);
      const verdict = await store.check({ readData: false });
      assert.equal(verdict.ok, false, `offset ${offset}`);
      assert.ok(verdict.problems.every(({ file }) => file === `packs/${pack}`));
      flip(path, offset);
    }
    flip(join(dir, 'snapshots', other.id), 60);
    assert.deepEqual(
      (await store.check({ readData: false })).problems.map(({ file, snapshots }) => [file, snapshots]),
      [[`snapshots/${other.id}`, [other.id]]],
    );
    await assert.rejects(store.openSnapshot(other.id), { code: 'DAMAGED', message: new RegExp(other.id) });
    await assert.rejects(store.gc({ dryRun: false }), { code: 'DAMAGED' }); // it cannot know what is needed
    flip(join(dir, 'snapshots', other.id), 60);

    copyFileSync(path, `${path}.aside`);
    rmSync(path);
    const missing = await store.check({ readData: false });
    assert.ok(
      missing.problems.some(({ file, snapshots }) => file === `packs/${pack}` && snapshots.includes(mine.id)),
    );
    await assert.rejects(load(store, mine.id), { code: 'DAMAGED' });
    copyFileSync(`${path}.aside`, path);
    assert.deepEqual(await load(store, mine.id), { 'ram@0x0': noise(1, 100) });
  });

  it('notices every bit that changes in a pack or a snapshot', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': Buffer.concat([textPages(1, 3), noise(1, 1)]) });
    const next = seeded(1);
    for (const file of [`packs/${readdirSync(join(dir, 'packs'))[0]}`, `snapshots/${id}`]) {
      const path = join(dir, file);
      const { size } = statSync(path);
      for (let i = 0; i < 150; i++) {
        const offset = i < 40 ? size - 1 - i * 5 : next() % size;
        const bit = next() % 8;
        flip(path, Math.max(0, offset), bit);
        const { ok } = await store.check({ readData: true });
        assert.equal(ok, false, `${file}, offset ${offset}, bit ${bit}`);
        flip(path, Math.max(0, offset), bit);
      }
    }
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('7: a full disk is told, leaves nothing half-made and everything else readable, and gc works on it', async function () {
    const at = join(scratchDir(this), 'small');
    mkdirSync(at);
    mountSmall(this, at, 24 << 20);
    const dir = join(at, 'store');
    const store = Store.open(dir, { write: true, create: true });
    try {
      const kept = { 'ram@0x0': noise(1, 1000) };
      await save(store, kept, { tag: 'kept' });
      await save(store, { 'ram@0x0': noise(2, 2000) }, { tag: 'victim' });
      const before = filesOf(dir);
      for (let i = 0; i < 3; i++)
        await assert.rejects(save(store, { 'ram@0x0': noise(100 + i, 5000) }), {
          code: 'NO_SPACE',
          hint: /gc/,
        });
      await assert.rejects(store.put(join(dir, '..', 'none'), { tag: null, name: null }), {
        code: 'NO_SUCH_FILE',
      });
      assert.deepEqual(filesOf(dir), before);
      assert.deepEqual(await load(store, 'kept'), kept);

      // Now full to the last byte, with nothing of ours to blame.
      const filler = openSync(join(at, 'filler'), 'w');
      try {
        for (;;) writeFileSync(filler, Buffer.alloc(65536));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
      try {
        for (;;) writeFileSync(filler, Buffer.alloc(512));
      } catch {}
      assert.equal(statfsSync(at).bavail, 0);
      await assert.rejects(store.beginSave({ parent: null }), { code: 'NO_SPACE' });
      store.close();
      const reader = Store.open(dir, { write: false });
      assert.deepEqual(await load(reader, 'kept'), kept);
      reader.close();

      const writer = Store.open(dir, { write: true });
      try {
        writer.remove(['victim']);
        const { freedBytes } = await writer.gc({ dryRun: false });
        assert.ok(freedBytes > 7 << 20, String(freedBytes));
        assert.deepEqual(await load(writer, 'kept'), kept);
        assert.ok(readdirSync(dir).includes('reserve'));
        const again = { 'ram@0x0': noise(7, 1000) };
        assert.deepEqual(await load(writer, (await save(writer, again)).id), again);
      } finally {
        writer.close();
      }
    } finally {
      store.close();
    }
  });

  it('7: what a pack or a snapshot claims is checked before it is believed', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': textPages(1, 20) });
    const path = join(dir, 'snapshots', id);
    const good = readFileSync(path);
    for (const [offset, value] of [
      [12, 0xffffffff],
      [16, 0xffffffff],
      [20, 0xffffffff],
      [12, 0],
    ] as const) {
      const bad = Buffer.from(good);
      bad.writeUInt32LE(value, offset);
      writeFileSync(path, bad);
      await assert.rejects(store.openSnapshot(id), { code: 'DAMAGED' });
    }
    const newer = Buffer.from(good);
    newer.writeUInt32LE(2, 8);
    writeFileSync(path, newer);
    await assert.rejects(store.openSnapshot(id), { code: 'DAMAGED' }, 'a flipped bit is no new format');
    createHash('sha256')
      .update(newer.subarray(0, -32))
      .digest()
      .copy(newer, newer.length - 32);
    writeFileSync(path, newer);
    await assert.rejects(store.openSnapshot(id), { code: 'NEWER_FORMAT', message: /version 2/ });
    writeFileSync(path, good.subarray(0, 20));
    await assert.rejects(store.openSnapshot(id), { code: 'DAMAGED' });
    writeFileSync(path, good);
    const pack = join(dir, 'packs', readdirSync(join(dir, 'packs'))[0]!);
    const sealed = readFileSync(pack);
    for (const length of [0, 31, 96, sealed.length - 1, sealed.length - 64]) {
      writeFileSync(pack, sealed.subarray(0, length));
      await assert.rejects(load(store, id), { code: 'DAMAGED' }, `cut to ${length}`);
    }
    writeFileSync(pack, sealed);
    await load(store, id);
  });

  it('is written and read alike with the native page code and without', async function () {
    const dir = join(scratchDir(this), 'store');
    const input = join(dir, '..', 'input');
    writeFileSync(
      input,
      Buffer.concat([
        textPages(1, 300),
        noise(1, 300),
        Buffer.alloc(65536),
        textPages(5, 10),
        Buffer.from('end'),
      ]),
    );
    const run = (native: string, ...args: string[]): string => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [childFile, dir, ...args], {
        env: { ...process.env, LIVESNAP_NATIVE_PAGES: native },
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
      return stdout;
    };
    for (const [writer, reader] of [
      ['1', '0'],
      ['0', '1'],
    ] as const) {
      rmSync(dir, { recursive: true, force: true });
      const first = JSON.parse(run(writer, 'put', input));
      assert.equal(first.newChunks, 611);
      const second = JSON.parse(run(reader, 'put', input)); // finds by fingerprint what the other wrote
      assert.equal(second.newChunks, 0);
      for (const native of [writer, reader]) {
        run(native, 'get', first.id, `${input}.back`);
        assert.deepEqual(readFileSync(`${input}.back`), readFileSync(input));
        assert.deepEqual(JSON.parse(run(native, 'check')), { ok: true, problems: [] });
      }
    }
  });

  it('lets its process end by itself, whether or not it was closed', async function () {
    const dir = join(scratchDir(this), 'store');
    for (const verb of ['put', 'forget', 'miss']) {
      const child = spawn(process.execPath, [childFile, dir, verb, childFile], { stdio: 'ignore' });
      const [status] = await once(child, 'exit');
      assert.equal(status, 0);
    }
    const store = Store.open(dir, { write: false });
    assert.equal(store.list().length, 2);
    store.close();
  });
});
