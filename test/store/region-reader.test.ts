import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';
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
import { Store } from '../../src/store/store.js';
import { watchedEnvironment } from '../crash/trace.js';
import { blocksOf, bytesOf, failuresOf, openRegion, packNames, reseal } from './regions.js';
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

const { EBADMSG, EOPNOTSUPP } = constants.errno;
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

/** Copies a pack as one of another generation. */
function copyAsGeneration(path: string, generation: number): void {
  const bytes = readFileSync(path);
  for (const at of [16, bytes.length - 64 + 16]) bytes.writeUInt32LE(generation, at);
  reseal(bytes, Number.parseInt(basename(path), 16));
  writeFileSync(path.replace(/-\d+\.pack$/, `-${generation}.pack`), bytes);
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

  describe('where the store is damaged', () => {
    /** A store with a snapshot in two packs, one of them of generation 1, and a reader of its region. */
    async function build(test: Mocha.Context) {
      const { store, dir } = newStore(test);
      const removed = await save(store, { disk0: Buffer.concat([textPages(9, 30), textPages(1, 50)]) });
      const bytes = Buffer.concat([textPages(1, 50), Buffer.alloc(500 * PAGE_BYTES), noise(2, 40)]);
      const { id } = await save(store, { disk0: bytes.subarray(0, bytes.length - 1000) });
      store.remove([removed.id]);
      await store.gc({ dryRun: false });
      store.close();
      const names = packNames(dir) as [string, string];
      assert.deepEqual(
        names.map((name) => name.slice(8)),
        ['-1.pack', '-0.pack'],
      );
      const expected = bytes.subarray(0, bytes.length - 1000);
      /** Reads all by a reader of its own: readers of one store share what they have open. */
      const readAll = (pieceBytes?: number) => {
        const reader = openRegionReader({ packsDir: join(dir, 'packs'), ...blocksOf(dir, id, 'disk0') });
        const failures = failuresOf(reader, expected, pieceBytes);
        const error = regionReaderError(reader);
        closeRegionReader(reader);
        return { failures, error };
      };
      assert.equal(readAll().failures, 0);
      return { dir, id, expected, names, paths: names.map((name) => join(dir, 'packs', name)), readAll };
    }

    it('never gives wrong bytes for a flipped bit', async function () {
      const { paths, readAll } = await build(this);
      const next = seeded(SEED + 2);
      const share = process.env.LIVESNAP_FLIPS === 'all' ? 1 : 400;
      let failures = 0;
      for (const path of paths) {
        const original = readFileSync(path);
        for (let offset = 0; offset < original.length; offset++) {
          const isHead = offset < 64 || offset > original.length - 64;
          if (next() % (isHead ? 4 : share) !== 0) continue;
          flipBit(path, offset, next() & 7);
          const failed = readAll().failures;
          // The lists of identities are for saves; reading needs everything else.
          if (isHead && offset < original.length - 64) assert.ok(failed > 0, `${path} at ${offset}`);
          failures += failed;
          writeFileSync(path, original);
        }
      }
      assert.ok(failures > 100, `only ${failures} failures`);
    });

    it('never gives wrong bytes for a pack that was changed and sealed again', async function () {
      const { paths, names, readAll } = await build(this);
      const next = seeded(SEED + 3);
      const rounds = process.env.LIVESNAP_FLIPS === 'all' ? 20_000 : 400;
      let failures = 0;
      for (let round = 0; round < rounds; round++) {
        const which = round % 2;
        const original = readFileSync(paths[which]!);
        const bytes = Buffer.from(original);
        const footer = bytes.length - 64;
        const trailer = Number(bytes.readBigUInt64LE(footer + 32));
        const frames = bytes.readUInt32LE(footer + 20);
        const frame = bytes.readUInt32LE(trailer + (next() % frames) * 16);
        const where = [
          next() % 24,
          footer + 8 + (next() % 32),
          trailer + (next() % (frames * 16)),
          trailer + frames * 16 + (next() % 64),
          frame + 8 + (next() % 40),
          32 + (next() % (trailer - 32)),
        ][next() % 6]!;
        const values = [0, 1, 0x7f, 0x80, 0xff, next() & 0xff, bytes[where]! ^ (1 << (next() & 7))];
        for (let i = next() % 3; i >= 0; i--) bytes[where + i] = values[next() % values.length]!;
        reseal(bytes, Number.parseInt(names[which]!, 16));
        writeFileSync(paths[which]!, bytes);
        failures += readAll().failures;
        writeFileSync(paths[which]!, original);
      }
      assert.ok(failures > rounds / 4, `only ${failures} failures`);
    });

    it('tells file, offset and reason, and reads again once the file is whole', async function () {
      const { dir, id, expected, names, paths } = await build(this);
      const [, path] = paths as [string, string];
      const original = readFileSync(path);
      flipBit(path, 5000);
      const { reader } = openRegion(this, dir, id, 'disk0');
      assert.ok(failuresOf(reader, expected) > 0);
      const { errno, file, offset, why } = regionReaderError(reader)!;
      assert.equal(errno, EBADMSG);
      assert.equal(file, `packs/${names[1]}`);
      assert.ok(offset! >= 32 && offset! <= 5000);
      assert.equal(why, 'the frame does not match its checksum');
      const whole = `${path}.tmp`;
      writeFileSync(whole, original);
      renameSync(whole, path); // another file under the name of the one that is open
      assert.equal(failuresOf(reader, expected), 0);
    });

    it('fails where the entry of a manifest block does not fit what it leads to', async function () {
      const { store, dir } = newStore(this);
      const { id } = await save(store, { disk0: Buffer.concat([noise(1, 512), noise(2, 512), noise(3, 9)]) });
      const { blocks, sizeBytes } = blocksOf(dir, id, 'disk0');
      const errorOf = (change: (bytes: Buffer) => void, size = sizeBytes): string | null => {
        const bytes = Buffer.from(blocks);
        change(bytes);
        const packsDir = join(dir, 'packs');
        const reader = openRegionReader({ packsDir, sizeBytes: size, blocks: bytes });
        const errno = readRegion(reader, 2 * BLOCK_BYTES, Buffer.alloc(PAGE_BYTES));
        const others = readRegion(reader, 0, Buffer.alloc(PAGE_BYTES));
        const why = regionReaderError(reader)?.why ?? null;
        closeRegionReader(reader);
        assert.ok(
          why === null ? errno === 0 && others === 0 : errno === EBADMSG || others === EBADMSG,
          String(why),
        );
        return why;
      };
      assert.equal(
        errorOf(() => {}),
        null,
      );
      const otherDigest = 'a manifest block does not match its digest';
      assert.equal(
        errorOf((bytes) => bytes.copyWithin(8, 40, 48)),
        otherDigest,
      );
      assert.equal(
        errorOf((bytes) => void bytes.writeUInt8(bytes[16]! ^ 1, 16)),
        otherDigest,
      );
      assert.equal(
        errorOf((bytes) => bytes.copyWithin(0, 32, 40)),
        'a chunk is not the page that was saved',
      );
      assert.equal(
        errorOf((bytes) => bytes.copyWithin(64, 0, 8)),
        'the places of a manifest block do not match its fingerprints',
      );
      assert.equal(
        errorOf((bytes) => void bytes.writeUInt16LE(8, 64 + 28)),
        'a manifest block does not have the number of pages that its snapshot lists',
      );
      assert.equal(
        errorOf(() => {}, sizeBytes - PAGE_BYTES),
        'a manifest block has pages beyond the end of its region',
      );
      assert.match(errorOf((bytes) => void bytes.writeUInt32LE(32767, 4))!, /^there is no chunk 32767$/);
    });

    it('reads a manifest block again whose places led to other pages, once its pack is the right one', async function () {
      // Two stores whose second packs differ only in the places of the pages that the first packs hold.
      const [x, y, z] = [noise(1, 1), noise(2, 1), noise(3, 1)];
      const make = async (earlier: Buffer) => {
        const { store, dir } = newStore(this);
        await save(store, { other: earlier });
        return { dir, id: (await save(store, { disk0: Buffer.concat([x, y, z]) })).id };
      };
      const right = await make(Buffer.concat([x, y]));
      const wrong = await make(Buffer.concat([y, x]));
      const path = join(right.dir, 'packs', packNames(right.dir)[1]!);
      const kept = `${path}.kept`;
      renameSync(path, kept);
      copyFileSync(join(wrong.dir, 'packs', packNames(wrong.dir)[1]!), path);
      const { reader } = openRegion(this, right.dir, right.id, 'disk0');
      assert.equal(failuresOf(reader, Buffer.concat([x, y, z])), 1);
      assert.equal(regionReaderError(reader)!.why, 'a chunk is not the page that was saved');
      renameSync(kept, path);
      assert.equal(failuresOf(reader, Buffer.concat([x, y, z])), 0);
    });

    it('reads another generation of a pack that is damaged or gone', async function () {
      const { dir, id, expected, names, paths, readAll } = await build(this);
      const { reader } = openRegion(this, dir, id, 'disk0');
      assert.ok(bytesOf(reader, 0, PAGE_BYTES).equals(expected.subarray(0, PAGE_BYTES)));
      const number = Number.parseInt(names[1]!, 16);
      copyAsGeneration(paths[1]!, 3);
      truncateSync(paths[1]!, 40); // of the file that is open, too
      assert.equal(failuresOf(reader, expected), 0);
      unlinkSync(paths[1]!);
      closeRegionReader(reader);
      assert.equal(readAll().failures, 0);
      const hinted = openRegion(this, dir, id, 'disk0', { generations: Uint32Array.of(number, 2) });
      assert.equal(failuresOf(hinted.reader, expected), 0);
    });

    it('fails for a pack that is missing, or is not a regular file, without waiting', async function () {
      const { names, paths, readAll } = await build(this);
      const [, path] = paths as [string, string];
      const kept = `${path}.kept`;
      renameSync(path, kept);
      const kinds: Record<string, [() => void, string]> = {
        missing: [() => {}, 'the file is missing'],
        link: [() => symlinkSync(kept, path), 'this is not a regular file'],
        directory: [() => mkdirSync(path), 'this is not a regular file'],
        pipe: [() => execFileSync('mkfifo', [path]), 'this is not a regular file'],
        empty: [() => writeFileSync(path, ''), 'a pack cannot have the size of this file'],
        'another pack': [() => copyFileSync(paths[0]!, path), 'the header is of another pack'],
      };
      for (const [what, [make, why]] of Object.entries(kinds)) {
        make();
        const { failures, error } = readAll();
        assert.ok(failures > 0, what);
        assert.deepEqual(error, {
          errno: EBADMSG,
          file: `packs/${names[1]}`,
          offset: what === 'another pack' ? 0 : null,
          why,
        });
        rmSync(path, { recursive: true, force: true });
      }
      renameSync(kept, path);
      assert.equal(readAll().failures, 0);
    });

    it('fails for chunks that repair has marked as lost, and reads the others', async function () {
      const { dir, paths, readAll } = await build(this);
      flipBit(paths[1]!, 5000);
      const { lost } = await Store.repair(dir);
      assert.ok(lost.length > 0);
      const { failures, error } = readAll(PAGE_BYTES);
      assert.equal(failures, 16);
      assert.equal(error!.why, 'chunks were lost here');
    });

    it('fails for a codec and a version that it does not know', async function () {
      const { names, paths, readAll } = await build(this);
      const [, path] = paths as [string, string];
      const original = readFileSync(path);
      const trailer = Number(original.readBigUInt64LE(original.length - 32));
      const frame = original.readUInt32LE(trailer);
      const changes: [(bytes: Buffer) => void, RegExp][] = [
        [
          (bytes) => {
            for (const flags of [frame + 14, trailer + 14]) bytes.writeUInt16LE(7 << 8, flags);
          },
          /^the frame is compressed by codec 7$/,
        ],
        [(bytes) => void bytes.writeUInt32LE(2, 8), /^the file has format version 2$/],
        [(bytes) => void bytes.writeUInt32LE(9, bytes.length - 56), /^the file has format version 9$/],
      ];
      for (const [change, why] of changes) {
        const bytes = Buffer.from(original);
        change(bytes);
        reseal(bytes, Number.parseInt(names[1]!, 16));
        writeFileSync(path, bytes);
        const { failures, error } = readAll();
        assert.ok(failures > 0);
        assert.equal(error!.errno, EOPNOTSUPP);
        assert.match(error!.why, why);
      }
    });
  });
});
