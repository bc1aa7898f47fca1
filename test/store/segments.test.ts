import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, readdirSync, readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Segment } from '../../src/store/segment/fingerprints.js';
import { mapSegment, segmentFile } from '../../src/store/segment/segment-file.js';
import { verifySegment } from '../../src/store/segment/segment-scan.js';
import { writeSegment } from '../../src/store/segment/segment-writer.js';
import { sortEntries } from '../../src/store/segment/sorted-entries.js';
import type { Store } from '../../src/store/store.js';
import {
  dropScratch,
  load,
  MemorySource,
  machineMetadata,
  newStore,
  noise,
  save,
  scratchDir,
  seeded,
} from './scratch.js';

const busErrorChild = fileURLToPath(new URL('./bus-error-child.js', import.meta.url));
const savingChild = fileURLToPath(new URL('./saving-child.js', import.meta.url));

const segmentsOf = (dir: string): string[] => readdirSync(join(dir, 'segments')).sort();

/** How many chunks a full save of these bytes stores. */
async function newChunks(store: Store, bytes: Buffer): Promise<number> {
  const session = await store.beginSave({ regions: [] });
  await session.abort();
  const { id, newChunks: count } = await save(store, { other: bytes });
  store.remove([id]);
  return count;
}

/** Distinct pages that are fast to make and to compress. */
function numbered(seed: number, count: number): Buffer {
  const bytes = Buffer.alloc(count * PAGE_BYTES);
  for (let i = 0; i < count; i++) bytes.writeUInt32LE(seed * 65536 + i, i * PAGE_BYTES);
  return bytes;
}

function flip(path: string, offset: number, bit: number): void {
  const bytes = readFileSync(path);
  bytes[offset]! ^= 1 << bit;
  writeFileSync(path, bytes);
}

describe('segments', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('find every chunk after many saves, merges and a gc, with few files', async function () {
    const { store, dir } = newStore(this);
    const all: Buffer[] = [];
    for (let i = 0; i < 20; i++) {
      all.push(noise(i, 30 + 5 * (i % 4)));
      await save(store, { 'ram@0x0': all.at(-1)! });
      assert.equal(await store.tidy(), null);
    }
    assert.ok(segmentsOf(dir).length <= 5, segmentsOf(dir).join(' '));
    // Every page is found. Only places of manifest blocks can be new.
    assert.ok((await newChunks(store, Buffer.concat(all))) <= 4);
    await store.gc({ dryRun: false });
    assert.equal(segmentsOf(dir).length, 1);
    assert.ok((await newChunks(store, Buffer.concat(all))) <= 4);
  });

  it('are found by a save that began while they were merged', async function () {
    const { store, dir } = newStore(this);
    const [many, fewer] = [numbered(1, 16_000), numbered(2, 8_100)];
    for (const pages of [many, fewer]) await save(store, { 'ram@0x0': pages });
    // The check keeps one Worker busy, so the save maps its segments after the other Worker has merged them.
    const checked = store.check({ readData: true });
    const begun = store.beginSave({ regions: [] });
    assert.equal(await store.tidy(), null);
    const session = await begun;
    await checked;
    assert.equal(segmentsOf(dir).length, 1);
    await session.store(new MemorySource({ 'ram@0x0': fewer }));
    const { newChunks } = await session.commit(machineMetadata());
    assert.ok(newChunks <= 40, `${newChunks} new chunks, but only those of the manifest can be new`);
  });

  for (const [what, harm] of Object.entries({
    missing: unlinkSync,
    truncated: (path: string) => truncateSync(path, 500),
    'another file': (path: string) => writeFileSync(path, Buffer.alloc(2000)),
    'too long': (path: string) => writeFileSync(path, Buffer.alloc(16), { flag: 'a' }),
  }))
    it(`cost only space when one is ${what}: saves succeed, check reports it, and gc rebuilds it`, async function () {
      const { store, dir } = newStore(this);
      const contents = { 'ram@0x0': noise(1, 300) };
      const { id } = await save(store, contents);
      harm(join(dir, 'segments', segmentsOf(dir)[0]!));
      const { problems } = await store.check({ readData: false });
      assert.deepEqual(
        problems.map(({ file }) => file),
        [`segments/${segmentsOf(dir)[0] ?? '00000001.seg'}`],
      );
      const again = await save(store, { 'ram@0x0': noise(1, 200) });
      assert.ok(again.newChunks >= 200);
      await store.gc({ dryRun: false });
      assert.equal(segmentsOf(dir).length, 1);
      assert.equal((await store.check({ readData: true })).ok, true);
      assert.ok((await newChunks(store, noise(1, 300))) <= 2);
      assert.deepEqual(await load(store, id), contents);
    });

  it('with a flipped bit are not merged, and gc rebuilds them', async function () {
    const { store, dir } = newStore(this);
    const all = [noise(1, 60), noise(2, 60)];
    for (const pages of all) await save(store, { 'ram@0x0': pages });
    const [first] = segmentsOf(dir) as [string];
    flip(join(dir, 'segments', first), 32 + 16 * 30 + 3, 5); // in a fingerprint
    const before = segmentsOf(dir);
    assert.match((await store.tidy())!.message, new RegExp(`segments/${first}: .* checksum`));
    assert.deepEqual(segmentsOf(dir), before);
    for (const seed of [3, 4]) await save(store, { 'ram@0x0': noise(seed, 60) });
    assert.equal(await store.tidy(), null, 'newer segments are merged without it');
    assert.equal(segmentsOf(dir).length, 2);
    assert.deepEqual(
      (await store.check({ readData: false })).problems.map(({ file, message }) => [file, message]),
      [[`segments/${first}`, 'the segment does not match its checksum']],
    );
    await store.gc({ dryRun: false });
    assert.equal(segmentsOf(dir).length, 1);
    assert.equal((await store.check({ readData: true })).ok, true);
    for (const pages of all) assert.ok((await newChunks(store, pages)) <= 2);
    assert.equal(segmentsOf(dir).length, 1);
  });

  it('are reported by check for every flipped bit', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': noise(1, 20) });
    const [name] = segmentsOf(dir) as [string];
    const path = join(dir, 'segments', name);
    const { length } = readFileSync(path);
    const row = { number: Number.parseInt(name, 16), entries: (length - 40) / 16 };
    assert.equal(verifySegment(pageOps, dir, row), null);
    for (let bit = 0; bit < length * 8; bit++) {
      flip(path, bit >> 3, bit & 7);
      assert.notEqual(verifySegment(pageOps, dir, row), null, `bit ${bit}`);
      flip(path, bit >> 3, bit & 7);
    }
    assert.equal(verifySegment(pageOps, dir, row), null);
  });

  it('with a filter are reported for a flipped bit in it, and for the filter of another segment', function () {
    const { dir } = newStore(this);
    const next = seeded(5);
    const segmentOf = (number: number): Buffer => {
      const words = Uint32Array.from({ length: 4 * 512 }, () => next());
      const { fd } = writeSegment(pageOps, dir, number, [sortEntries(words)], 512)!;
      closeSync(fd);
      return readFileSync(join(dir, segmentFile(number)));
    };
    const row = { number: 7, entries: 512 };
    const path = join(dir, segmentFile(7));
    const bytes = segmentOf(7);
    const filterAt = 32 + 16 * 512;
    assert.equal(bytes.length, filterAt + 16 * 64 + 8);
    assert.equal(verifySegment(pageOps, dir, row), null);
    for (let bit = 8 * filterAt; bit < 8 * bytes.length; bit += 11) {
      flip(path, bit >> 3, bit & 7);
      assert.notEqual(verifySegment(pageOps, dir, row), null, `bit ${bit}`);
      flip(path, bit >> 3, bit & 7);
    }
    const other = Buffer.concat([
      bytes.subarray(0, filterAt),
      segmentOf(8).subarray(filterAt, -8),
      Buffer.alloc(8),
    ]);
    pageOps.checksum(other, 0, other.length - 8, 0, 0, other.subarray(-8));
    writeFileSync(path, other);
    const { offset, why } = verifySegment(pageOps, dir, row)!;
    assert.deepEqual([offset, why], [filterAt, 'the filter does not match the entries']);
  });

  it('are not mapped for a row with another number or another count of entries', function () {
    const { dir } = newStore(this);
    const next = seeded(1);
    const words = Uint32Array.from({ length: 400 }, () => next());
    const { row, fd } = writeSegment(pageOps, dir, 7, [sortEntries(words)], words.length / 4)!;
    closeSync(fd);
    assert.deepEqual(row, { number: 7, entries: 100 });
    assert.deepEqual(mapSegment(dir, row), new Segment(sortEntries(words)));
    for (const entries of [0, 99, 101, 2 ** 26 + 1, 2 ** 32 - 1, Number.MAX_SAFE_INTEGER])
      assert.equal(mapSegment(dir, { number: 7, entries }), null);
    assert.equal(mapSegment(dir, { number: 8, entries: 100 }), null);
    assert.equal(writeSegment(pageOps, dir, 9, [], 0), null);
    assert.deepEqual(segmentsOf(dir), ['00000007.seg']);
  });

  for (const [what, which] of [
    ['while they are mapped', 'none'],
    ['after a handler has received another SIGBUS', 'heard'],
  ] as const)
    it(`truncated ${what} read as zeros, and the process survives`, function () {
      const { dir } = newStore(this);
      const child = spawnSync(process.execPath, [busErrorChild, dir, segmentFile(7), which], {
        encoding: 'utf8',
      });
      assert.equal(child.signal, null);
      assert.equal(child.stdout, '0 0\n', child.stderr);
    });

  for (const [what, which] of [
    ['that another process sent', 'sent'],
    ['of another mapping', 'elsewhere'],
  ] as const)
    it(`do not keep a SIGBUS ${what} from ending the process`, function () {
      const { dir } = newStore(this);
      const child = spawnSync(process.execPath, [busErrorChild, dir, segmentFile(7), which], {
        encoding: 'utf8',
        cwd: dir, // a core file goes here
      });
      assert.deepEqual([child.signal, child.stdout], ['SIGBUS', ''], child.stderr);
    });

  it('lose no entry when several processes merge them at once', async function () {
    const { store, dir } = newStore(this);
    const files = Array.from({ length: 3 }, (_, i) => {
      const path = join(scratchDir(this), `file${i}`);
      writeFileSync(path, noise(i, 100));
      return path;
    });
    for (let round = 0; round < 3; round++) {
      const children = files.map((file) =>
        spawn(process.execPath, [savingChild, dir, 'put', file], { stdio: ['ignore', 'ignore', 'inherit'] }),
      );
      const ends = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
      assert.deepEqual(ends, [0, 0, 0]);
    }
    assert.equal((await store.check({ readData: true })).ok, true);
    for (let i = 0; i < 3; i++) assert.ok((await newChunks(store, noise(i, 100))) <= 2);
    await store.gc({ dryRun: false });
    assert.deepEqual(await store.gc({ dryRun: true }), {
      removedChunks: 0,
      freedBytes: 0,
      recompressed: null,
    });
    assert.equal(segmentsOf(dir).length, 1);
  });
});
