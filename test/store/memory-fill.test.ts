/** Memories that are filled from a snapshot natively, at once and while they are read. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  closeMemory,
  createMemory,
  dataRanges,
  discardPages,
  type MemoryHandle,
  readMemory,
} from '../../src/native/memory.js';
import { lazyFillErrno, MemoryFill } from '../../src/native/memory-fill.js';
import { type OpenRegion, PAGE_BYTES } from '../../src/page-stream.js';
import { DamageError } from '../../src/store/disk/damage.js';
import type { Store } from '../../src/store/store.js';
import { packNames } from './regions.js';
import { dropScratch, flipBit, newStore, noise, onDrop, save, seeded, textPages } from './scratch.js';

const srcUrl = (file: string): string => new URL(`../../src/${file}`, import.meta.url).href;

const SEED = Number(process.env.LIVESNAP_SEED ?? 20260101);
const RAM = 'ram@0x0';

function newMemory(test: Mocha.Context, sizeBytes: number): MemoryHandle {
  const memory = createMemory(sizeBytes);
  onDrop(test, () => closeMemory(memory));
  return memory;
}

function contentOf(memory: MemoryHandle, length: number, offset = 0): Buffer {
  const bytes = Buffer.alloc(length, 0xee);
  readMemory(memory, offset, bytes);
  return bytes;
}

/** A store with a chain of saves whose pages lie in many frames, and the last one. */
async function chain(test: Mocha.Context, { saves = 8 } = {}) {
  const { store, dir } = newStore(test);
  const next = seeded(SEED);
  const ram = Buffer.concat([noise(1, 700), Buffer.alloc(600 * PAGE_BYTES), textPages(2, 300), noise(1, 20)]);
  let { id } = await save(store, { [RAM]: ram });
  const pages = ram.length / PAGE_BYTES;
  for (let n = 0; n < saves; n++) {
    for (let i = 0; i < 40; i++) {
      const page = next() % pages;
      if (page % 7 === 0) ram.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      else ram.writeUInt32LE(next() >>> 0, page * PAGE_BYTES + (next() % 1000) * 4);
    }
    ({ id } = await save(store, { [RAM]: ram }));
  }
  return { store, dir, id, ram, next };
}

async function openRam(test: Mocha.Context, store: Store, id: string): Promise<OpenRegion> {
  const snapshot = await store.openSnapshot(id);
  const region = await snapshot.openRegion(RAM);
  snapshot.close();
  onDrop(test, () => region.close());
  return region;
}

describe(`a native fill (seed ${SEED})`, function () {
  this.timeout(120_000);
  afterEach(function () {
    dropScratch(this);
  });

  async function fillAll(
    store: Store,
    id: string,
    memory: MemoryHandle,
    sizeBytes: number,
  ): Promise<number[]> {
    const snapshot = await store.openSnapshot(id);
    const seen: number[] = [];
    try {
      const write = (): never => assert.fail('a memory is filled natively');
      const sink = { regions: [{ name: RAM, sizeBytes }], memories: [memory], write };
      await snapshot.fill(sink, (doneBytes, totalBytes) => seen.push(doneBytes, totalBytes!));
    } finally {
      snapshot.close();
    }
    return seen;
  }

  it('gives every byte of a snapshot, and leaves zero pages as holes', async function () {
    const { store, id, ram } = await chain(this);
    const memory = newMemory(this, ram.length);
    const seen = await fillAll(store, id, memory, ram.length);
    const filled = dataRanges(memory).reduce((sum, { length }) => sum + length, 0);
    assert.ok(contentOf(memory, ram.length).equals(ram));
    const zero = Buffer.alloc(PAGE_BYTES);
    let nonZero = 0;
    for (let at = 0; at < ram.length; at += PAGE_BYTES)
      if (!ram.subarray(at, at + PAGE_BYTES).equals(zero)) nonZero += PAGE_BYTES;
    assert.equal(filled, nonZero);
    assert.deepEqual(seen.slice(-2), [nonZero, nonZero]);
  });

  it('of a damaged store gives every byte, or fails with file, offset, snapshot and region', async function () {
    const { store, dir, id, ram, next } = await chain(this, { saves: 2 });
    let failures = 0;
    for (const name of packNames(dir)) {
      const path = join(dir, 'packs', name);
      const original = readFileSync(path);
      for (let i = 0; i < 12; i++) {
        flipBit(path, i < 4 ? original.length - 64 + 16 * i : next() % original.length, next() & 7);
        const memory = createMemory(ram.length);
        try {
          await fillAll(store, id, memory, ram.length);
          assert.ok(contentOf(memory, ram.length).equals(ram), 'wrong bytes');
        } catch (error) {
          assert.ok(error instanceof DamageError, String(error));
          assert.match(
            error.message,
            new RegExp(`^snapshot ${id} is damaged: .*${RAM} cannot be read: packs/${name}`),
          );
          failures++;
        } finally {
          closeMemory(memory);
        }
        writeFileSync(path, original);
      }
    }
    assert.ok(failures > 10, `${failures} failures`);
  });

  describe('while it is read', () => {
    before(function () {
      if (lazyFillErrno() !== null) this.skip();
    });

    function start(test: Mocha.Context, memory: MemoryHandle, { reader }: OpenRegion): MemoryFill {
      const fill = new MemoryFill([{ memory, reader }], { lazy: true });
      onDrop(test, () => fill.close());
      return fill;
    }

    it('gives the right bytes at once, in any order, and then ends', async function () {
      const { store, id, ram, next } = await chain(this);
      for (let round = 0; round < 10; round++) {
        const memory = newMemory(this, ram.length + 2 * PAGE_BYTES);
        const fill = start(this, memory, await openRam(this, store, id));
        for (let i = 0; i < 300; i++) {
          const at = (next() % (ram.length / PAGE_BYTES)) * PAGE_BYTES;
          assert.ok(
            contentOf(memory, PAGE_BYTES, at).equals(ram.subarray(at, at + PAGE_BYTES)),
            `page at ${at}`,
          );
        }
        if (round % 2 === 1) fill.hurry();
        await fill.ended;
        assert.equal(fill.error, null);
        assert.equal(fill.isComplete, true);
        const { doneBytes, totalBytes } = fill.progress;
        assert.equal(doneBytes, totalBytes);
        assert.ok(
          contentOf(memory, ram.length + 2 * PAGE_BYTES).equals(
            Buffer.concat([ram, Buffer.alloc(2 * PAGE_BYTES)]),
          ),
        );
      }
    });

    it('begins with what an earlier fill of the snapshot had faults for', async function () {
      const { store, id, ram } = await chain(this);
      const region = await openRam(this, store, id);
      let faults: Uint32Array = new Uint32Array(0);
      // If the filling threads are faster there is no fault.
      while (faults.length === 0) {
        const first = newMemory(this, ram.length);
        const recorded = start(this, first, region);
        contentOf(first, PAGE_BYTES, 71 * PAGE_BYTES); // not a zero page
        await recorded.ended;
        faults = recorded.faults;
      }
      assert.deepEqual([...faults], [0, 64]);

      const junk = [7, 0, 0, 2 ** 32 - 1, 0, 3];
      const wanted = Uint32Array.from([0, 96, ...junk, 0, 64, 0, 64]);
      const second = newMemory(this, ram.length);
      const fill = new MemoryFill([{ memory: second, reader: region.reader }], { lazy: true, wanted });
      onDrop(this, () => fill.close());
      await fill.ended;
      assert.equal(fill.error, null);
      assert.ok(contentOf(second, ram.length).equals(ram));
    });

    it('lets no page be given back until it has ended', async function () {
      const { store, id, ram } = await chain(this);
      for (let round = 0; round < 10; round++) {
        const memory = newMemory(this, ram.length);
        const fill = start(this, memory, await openRam(this, store, id));
        const isGivenBack = discardPages(memory, 0, ram.length);
        assert.equal(isGivenBack && !fill.isComplete, false);
        if (!isGivenBack) assert.ok(contentOf(memory, ram.length).equals(ram));
        await fill.ended;
        assert.equal(discardPages(memory, 0, ram.length), true);
        assert.ok(contentOf(memory, ram.length).equals(Buffer.alloc(ram.length)));
      }
    });

    it('finds packs that gc has rewritten meanwhile, without the snapshot and the store', async function () {
      const { store, dir, id, ram } = await chain(this);
      const region = await openRam(this, store, id);
      store.remove([...store.list()].map((each) => each.id).filter((each) => each !== id));
      const before = packNames(dir);
      await store.gc({ dryRun: false });
      assert.notDeepEqual(packNames(dir), before);
      store.remove([id]);
      await store.gc({ dryRun: false });
      store.close();
      const memory = newMemory(this, ram.length);
      const fill = start(this, memory, region);
      assert.ok(contentOf(memory, ram.length).equals(ram));
      await fill.ended;
      assert.equal(fill.error, null);
    });

    it('may be going on when its process ends', async function () {
      const { store, dir, id } = await chain(this);
      store.close();
      const program = `
        const { MemoryFill } = await import(${JSON.stringify(srcUrl('native/memory-fill.js'))});
        const { createMemory } = await import(${JSON.stringify(srcUrl('native/memory.js'))});
        const { Store } = await import(${JSON.stringify(srcUrl('store/store.js'))});
        const store = Store.open(${JSON.stringify(dir)}, { write: false });
        const { reader } = await (await store.openSnapshot('${id}')).openRegion('${RAM}');
        for (let i = 0; i < 20; i++) new MemoryFill([{ memory: createMemory(16 << 20), reader }], { lazy: true });
        process.exitCode = 7;`; // the loop is empty
      for (let round = 0; round < 10; round++) {
        const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
        assert.deepEqual([ran.status, ran.signal], [7, null], ran.stderr);
      }
    });

    it('that finds damage lets go who waits, and names file and page', async function () {
      const { store, dir, id, ram } = await chain(this, { saves: 0 });
      const region = await openRam(this, store, id);
      const [name] = packNames(dir);
      renameSync(join(dir, 'packs', name!), join(dir, 'packs', 'gone'));
      const memory = newMemory(this, ram.length);
      const fill = start(this, memory, region);
      contentOf(memory, PAGE_BYTES, 16 * PAGE_BYTES); // returns
      await fill.ended;
      const error = fill.error!;
      assert.deepEqual([error.file, error.why], [`packs/${name}`, 'the file is missing']);
      assert.equal(fill.isComplete, false);
    });

    it('ends once, also when it is hurried at its very end', async function () {
      const { store } = newStore(this);
      const { id } = await save(store, { [RAM]: noise(3, 40) });
      const region = await openRam(this, store, id);
      for (let round = 0; round < 200; round++) {
        const memory = createMemory(40 * PAGE_BYTES);
        const fill = new MemoryFill([{ memory, reader: region.reader }], { lazy: true });
        let ends = 0;
        void fill.ended.then(() => ends++);
        for (let turns = round % 20; turns > 0 && ends === 0; turns--) fill.hurry();
        await fill.ended;
        fill.hurry();
        assert.equal(fill.isComplete, true);
        fill.close();
        closeMemory(memory);
      }
    });

    it('that is closed lets go who waits', async function () {
      const { store, id, ram } = await chain(this, { saves: 0 });
      const memory = newMemory(this, ram.length);
      const fill = new MemoryFill([{ memory, reader: (await openRam(this, store, id)).reader }], {
        lazy: true,
      });
      fill.close();
      contentOf(memory, ram.length); // returns
      await fill.ended;
    });
  });
});
