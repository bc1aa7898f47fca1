import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync, symlinkSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  closeIoEngine,
  createIoEngine,
  submitStoreCopy,
  submitStoreRead,
  takeCompletions,
  waitForCompletion,
} from '../../src/native/block-io.js';
import { closeMemory, createMemory, readMemory, writeMemory } from '../../src/native/memory.js';
import {
  closeRegionReader,
  openRegionReader,
  type RegionReaderError,
  readRegion,
  regionDataPages,
  regionHasData,
  regionReaderError,
} from '../../src/native/region-reader.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { watchedEnvironment } from '../crash/trace.js';
import { blocksOf, bytesOf, copyAsGeneration, openRegion, packNames } from './regions.js';
import {
  dropScratch,
  flipBit,
  load,
  newStore,
  noise,
  save,
  scratchDir,
  seeded,
  textPages,
} from './scratch.js';

const SEED = Number(process.env.LIVESNAP_SEED ?? 20260101);
const ROUNDS = Number(process.env.LIVESNAP_ROUNDS ?? 3);
const BLOCK_BYTES = 512 * PAGE_BYTES;

/** Bytes of some manifest blocks with runs of zeros, text, noise and repeated pages; the last page may be short. */
function generated(next: () => number): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES * (1 + (next() % 3)) + (next() % BLOCK_BYTES) + 1);
  for (let at = 0; at < bytes.length; ) {
    const pages = 1 + (next() % 200);
    const kind = next() % 8;
    if (kind === 0) textPages(next() % 50, pages).copy(bytes, at);
    if (kind === 1) noise(next() % 50, pages).copy(bytes, at);
    if (kind === 2) bytes.fill(1 + (next() % 3), at, Math.min(at + pages * PAGE_BYTES, bytes.length));
    if (kind === 3) at += BLOCK_BYTES;
    at += pages * PAGE_BYTES;
  }
  return bytes;
}

interface ChildRead {
  readonly errno: number;
  readonly error: RegionReaderError | null;
}

/** Reads `disk0` in a process with few descriptors. */
function readInChild(
  dir: string,
  id: string,
  env = process.env,
): { withNone: ChildRead; withOne: ChildRead; bytes: Buffer } {
  const script = fileURLToPath(new URL('./region-reader-child.js', import.meta.url));
  const shell = ['-c', 'ulimit -n 96; exec "$@"', 'sh', process.execPath, script, dir, id, 'disk0'];
  const read = JSON.parse(execFileSync('sh', shell, { encoding: 'utf8', env }));
  return { ...read, bytes: Buffer.from(read.bytes, 'base64') };
}

/** Checks everything that a reader says about a region. */
function expectRegion(reader: number, expected: Buffer, next: () => number): void {
  assert.ok(bytesOf(reader, 0, expected.length).equals(expected));
  for (let i = 0; i < 100; i++) {
    const offset = next() % (expected.length + 5000);
    const length = next() % (i % 2 === 0 ? 300_000 : 5000);
    const wanted = Buffer.alloc(length);
    wanted.set(expected.subarray(offset, offset + length));
    assert.ok(bytesOf(reader, offset, length).equals(wanted), `${length} bytes at ${offset}`);
    if (!regionHasData(reader, offset, length)) assert.ok(wanted.equals(Buffer.alloc(length)));
  }
  const zeros = Buffer.alloc(BLOCK_BYTES);
  for (let block = 0; block * BLOCK_BYTES < expected.length; block++) {
    const bytes = expected.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    const isZero = bytes.equals(zeros.subarray(0, bytes.length));
    assert.equal(regionHasData(reader, block * BLOCK_BYTES, BLOCK_BYTES), !isZero);
    const bits = Buffer.alloc(64, 0xff);
    assert.equal(regionDataPages(reader, block, bits), 0);
    for (let page = 0; page < 512; page++) {
      const content = bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      const isData = !content.equals(zeros.subarray(0, content.length));
      assert.equal((bits[page >> 3]! >> (page & 7)) & 1, Number(isData), `page ${page} of block ${block}`);
    }
  }
}

describe(`the reader of a stored region (seed ${SEED})`, function () {
  this.timeout(120_000);
  afterEach(function () {
    dropScratch(this);
  });

  it('gives the bytes that a restore gives, from several packs and generations', async function () {
    const next = seeded(SEED);
    for (let round = 0; round < ROUNDS; round++) {
      const fingerprintBits = [64, 48, 6][round % 3]!;
      const { store, dir } = newStore(this, fingerprintBits);
      const removed = await save(store, { disk0: Buffer.concat([textPages(round, 60), generated(next)]) });
      const disk = generated(next);
      const first = await save(store, { disk0: disk, disk1: generated(next) });
      for (let i = 0; i < 20; i++) noise(next(), 1).copy(disk, next() % disk.length);
      const second = await save(store, { disk0: disk, disk1: generated(next) }, { parent: first.id });
      const stale = openRegion(this, dir, first.id, 'disk0', { fingerprintBits });
      store.remove([removed.id]);
      await store.gc({ dryRun: false });
      for (const { id } of [first, second]) {
        const regions = await load(store, id);
        for (const [name, bytes] of Object.entries(regions)) {
          const { reader, sizeBytes } = openRegion(this, dir, id, name, { fingerprintBits });
          assert.equal(sizeBytes, bytes.length);
          expectRegion(reader, bytes, next);
        }
        if (id === first.id) expectRegion(stale.reader, regions.disk0!, next);
      }
    }
  });

  it('serves the I/O engine on several threads: into memory and into a file', async function () {
    const next = seeded(SEED + 1);
    const { store, dir } = newStore(this);
    const bytes = Buffer.concat([noise(1, 900), textPages(2, 900), Buffer.alloc(100)]);
    const { id } = await save(store, { disk0: bytes });
    const { reader } = openRegion(this, dir, id, 'disk0');
    const engine = createIoEngine(4, 256);
    const memory = createMemory(16 << 20);
    const path = join(scratchDir(this), 'copy');
    const fd = openSync(path, 'w+');
    const pairs = new Int32Array(512);
    try {
      writeMemory(memory, 0, Buffer.alloc(16 << 20, 0xee));
      let open = 0;
      const drain = (): void => {
        waitForCompletion(engine, -1);
        const count = takeCompletions(engine, pairs);
        for (let i = 0; i < count; i++) assert.equal(pairs[2 * i + 1], 0);
        open -= count;
      };
      const pieces = Array.from({ length: 1 + Math.ceil(bytes.length / 10_000) }, (_, i) => i * 10_000);
      pieces.sort(() => (next() & 1) - 0.5);
      for (const at of pieces) {
        const ranges = new Float64Array([memory, at, 6000, memory, at + 6000, 4000]);
        while (!submitStoreRead(engine, at, reader, at, ranges)) drain();
        open++;
        while (!submitStoreCopy(engine, at, { reader, offset: at }, { fd, offset: at }, 10_000)) drain();
        open++;
      }
      while (open > 0) drain();
      const end = pieces.length * 10_000;
      const expected = Buffer.alloc(end);
      bytes.copy(expected);
      const read = Buffer.alloc(end);
      readMemory(memory, 0, read);
      assert.ok(read.equals(expected));
      assert.equal(readSync(fd, read, 0, end, 0), end);
      assert.ok(read.equals(expected));
    } finally {
      closeIoEngine(engine);
      closeMemory(memory);
      closeSync(fd);
    }
  });

  it('ends undisturbed when it is closed with reads in flight', async function () {
    const { store, dir } = newStore(this);
    const bytes = noise(1, 2000);
    const { id } = await save(store, { disk0: bytes });
    const reader = openRegionReader({ packsDir: join(dir, 'packs'), ...blocksOf(dir, id, 'disk0') });
    const engine = createIoEngine(4);
    const memory = createMemory(bytes.length);
    for (let at = 0; at < bytes.length; at += PAGE_BYTES * 20)
      assert.ok(submitStoreRead(engine, 0, reader, at, new Float64Array([memory, at, PAGE_BYTES * 20])));
    closeRegionReader(reader);
    assert.throws(() => readRegion(reader, 0, Buffer.alloc(1)), { code: 'MACHINE_GONE' });
    const pairs = new Int32Array(2);
    for (let left = 100; left > 0; left--) {
      waitForCompletion(engine, -1);
      assert.equal(takeCompletions(engine, pairs), 1);
      assert.equal(pairs[1], 0);
    }
    const read = Buffer.alloc(bytes.length);
    readMemory(memory, 0, read);
    assert.ok(read.equals(bytes));
    closeIoEngine(engine);
    closeMemory(memory);
  });

  it('reads on while gc rewrites the packs', async function () {
    const { store, dir } = newStore(this);
    const bytes = Buffer.concat([textPages(1, 400), noise(2, 400)]);
    const removed: string[] = [];
    let last = '';
    for (let i = 0; i < 8; i++) {
      // Each pack has chunks that stay and chunks that do not.
      const part = Buffer.concat([bytes.subarray(0, (i + 1) * 100 * PAGE_BYTES), noise(100 + i, 60)]);
      removed.push((await save(store, { disk0: part })).id);
      last = (await save(store, { disk0: bytes.subarray(0, (i + 1) * 100 * PAGE_BYTES) })).id;
    }
    const { reader } = openRegion(this, dir, last, 'disk0');
    const engine = createIoEngine(3, 64);
    const memory = createMemory(bytes.length);
    const pairs = new Int32Array(128);
    let open = 0;
    let next = 0;
    const take = (): void => {
      const count = takeCompletions(engine, pairs);
      for (let i = 0; i < count; i++)
        assert.equal(pairs[2 * i + 1], 0, JSON.stringify(regionReaderError(reader)));
      open -= count;
    };
    const submit = (): boolean => {
      const at = ((next++ * 7919) % 800) * PAGE_BYTES;
      return submitStoreRead(engine, 1, reader, at, new Float64Array([memory, at, PAGE_BYTES]));
    };
    const generations = (): number => packNames(dir).filter((name) => !name.endsWith('-0.pack')).length;
    store.remove(removed);
    let isDone = false;
    const work = store.gc({ dryRun: false }).finally(() => {
      isDone = true;
    });
    while (!isDone) {
      take();
      while (submit()) open++;
      await new Promise(setImmediate);
    }
    await work;
    assert.ok(generations() > 2);
    while (open > 0) {
      waitForCompletion(engine, -1);
      take();
    }
    assert.ok(bytesOf(reader, 0, bytes.length).equals(bytes));
    closeIoEngine(engine);
    closeMemory(memory);
  });

  it('reads many packs with a single free descriptor, and says when there is none', async function () {
    const { store, dir } = newStore(this);
    let bytes = Buffer.alloc(0);
    let id = '';
    for (let i = 0; i < 20; i++) {
      bytes = Buffer.concat([bytes, noise(i, 2)]);
      ({ id } = await save(store, { disk0: bytes }));
    }
    const [replaced] = packNames(dir) as [string];
    copyAsGeneration(join(dir, 'packs', replaced), 5);
    flipBit(join(dir, 'packs', replaced), 1000); // in a frame: the pack is open when the other is looked for
    const { withNone, withOne, bytes: read } = readInChild(dir, id);
    const { EMFILE } = constants.errno;
    assert.equal(withNone.errno, EMFILE);
    assert.equal(withNone.error!.why, 'Too many open files');
    assert.equal(withOne.errno, 0, JSON.stringify(withOne.error));
    assert.ok(read.equals(bytes));
  });

  it('says that the disk cannot read a pack', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: noise(1, 40) });
    const file = `packs/${packNames(dir)[0]}`;
    const { EIO } = constants.errno;
    assert.deepEqual(readInChild(dir, id, watchedEnvironment(dir, { unreadable: file })).withOne, {
      errno: EIO,
      error: { errno: EIO, file, offset: 0, why: 'the disk cannot read it' },
    });
    assert.equal(readInChild(dir, id).withOne.errno, 0);
  });

  it('refuses entries of manifest blocks that are out of bounds or out of order', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { disk0: noise(1, 1500) });
    const { blocks, sizeBytes } = blocksOf(dir, id, 'disk0');
    const open = (change: (bytes: Buffer) => Buffer | undefined, size = sizeBytes): void => {
      const bytes = Buffer.from(blocks);
      const changed = change(bytes) ?? bytes;
      closeRegionReader(openRegionReader({ packsDir: join(dir, 'packs'), sizeBytes: size, blocks: changed }));
    };
    open(() => undefined);
    const changes: ((bytes: Buffer) => Buffer | undefined)[] = [
      (bytes) => bytes.subarray(0, 33),
      (bytes) => void bytes.writeUInt32LE(0, 0),
      (bytes) => void bytes.writeUInt32LE(32768, 4),
      (bytes) => void bytes.writeUInt32LE(0, 8),
      (bytes) => void bytes.writeUInt32LE(32768, 12),
      (bytes) => void bytes.writeUInt32LE(1, 24),
      (bytes) => void bytes.writeUInt32LE(3, 64 + 24),
      (bytes) => void bytes.writeUInt32LE(0xffff_ffff, 64 + 24),
      (bytes) => void bytes.writeUInt16LE(0, 28),
      (bytes) => void bytes.writeUInt16LE(513, 28),
    ];
    for (const change of changes) assert.throws(() => open(change), TypeError, change.toString());
    assert.throws(() => open(() => undefined, 2 * BLOCK_BYTES), TypeError);
    assert.throws(() => open(() => undefined, 2 ** 44 + 1), TypeError);
    const link = join(scratchDir(this), 'link');
    symlinkSync(join(dir, 'packs'), link);
    for (const packsDir of [link, join(dir, 'none'), join(dir, 'store.db')])
      assert.throws(() => openRegionReader({ packsDir, sizeBytes, blocks }), { code: 'SYSTEM' });
  });
});
