import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import {
  dropScratch,
  flipBit,
  load,
  MemorySource,
  machineMetadata,
  mountSmall,
  newStore,
  noise,
  save,
  scratchDir,
  textPages,
} from './scratch.js';

const childFile = fileURLToPath(new URL('./saving-child.js', import.meta.url));

const filesOf = (dir: string): string[] =>
  ['packs', 'snapshots', 'tags'].flatMap((folder) =>
    readdirSync(join(dir, folder)).map((name) => `${folder}/${name}`),
  );

describe('a store', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('shows nothing of a save before the commit, and all of it afterwards', async function () {
    const { store, dir } = newStore(this);
    const other = Store.open(dir, { write: false });
    const session = await store.beginSave({ regions: [] });
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
    it(`restores the right pages when fingerprints collide (${bits} bits)`, async function () {
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

  it('stores a page again if the chunk with its bytes is damaged', async function () {
    const { store, dir } = newStore(this);
    const ram = { 'ram@0x0': noise(1, 64) };
    const first = await save(store, ram);
    const [pack] = readdirSync(join(dir, 'packs'));
    flipBit(join(dir, 'packs', pack!), 100);
    await assert.rejects(load(store, first.id), { code: 'DAMAGED' });
    const second = await save(store, ram);
    assert.equal(second.newChunks, 16); // one frame
    assert.deepEqual(await load(store, second.id), ram);
  });

  it('stores no zero page', async function () {
    const { store } = newStore(this);
    const result = await save(store, { 'ram@0x0': Buffer.alloc(64 << 20) });
    assert.deepEqual([result.pages, result.zeroPages, result.newChunks], [16384, 16384, 0]);
    assert.ok(result.storedBytes < 1024);
    assert.deepEqual([store.stats().packs, store.stats().chunks], [0, 0]);
  });

  it('fails a save on a full disk, leaves no file of it, and still reads, removes and collects garbage', async function () {
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
      await assert.rejects(store.put(join(dir, '..', 'none'), { tags: [], name: null }), {
        code: 'NO_SUCH_FILE',
      });
      assert.deepEqual(filesOf(dir), before);
      assert.deepEqual(await load(store, 'kept'), kept);

      // Full to the last byte.
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
      await assert.rejects(store.beginSave({ regions: [] }), { code: 'NO_SPACE' });
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

  it('is the same for the native and the portable page code', async function () {
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
      const second = JSON.parse(run(reader, 'put', input)); // finds the other's chunks by fingerprint
      assert.equal(second.newChunks, 0);
      for (const native of [writer, reader]) {
        run(native, 'get', first.id, `${input}.back`);
        assert.deepEqual(readFileSync(`${input}.back`), readFileSync(input));
        assert.deepEqual(JSON.parse(run(native, 'check')), { ok: true, problems: [] });
      }
    }
  });

  it('does not keep its process alive, closed or not', async function () {
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
