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

/** How many chunks a save of pages that are all there already stores anew. */
async function newChunks(store: Store, bytes: Buffer): Promise<number> {
  const session = await store.beginSave({ parent: null });
  await session.abort();
  const { id, newChunks: count } = await save(store, { other: bytes });
  store.remove([id]);
  return count;
}

/** Pages that differ in a number, and are soon made and compressed. */
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

  it('find every chunk after many saves, mergers and a gc, with few files', async function () {
    const { store, dir } = newStore(this);
    const all: Buffer[] = [];
    for (let i = 0; i < 20; i++) {
      all.push(noise(i, 30 + 5 * (i % 4)));
      await save(store, { 'ram@0x0': all.at(-1)! });
      assert.equal(await store.tidy(), null);
    }
    assert.ok(segmentsOf(dir).length <= 5, segmentsOf(dir).join(' '));
    // Every page is found; of the manifest's two chunks only the places can be new.
    assert.ok((await newChunks(store, Buffer.concat(all))) <= 4);
    await store.gc({ dryRun: false });
    assert.equal(segmentsOf(dir).length, 1);
    assert.ok((await newChunks(store, Buffer.concat(all))) <= 4);
  });

  it('that are merged while a save begins are found by it all the same', async function () {
    const { store, dir } = newStore(this);
    const [many, fewer] = [numbered(1, 16_000), numbered(2, 8_100)];
    for (const pages of [many, fewer]) await save(store, { 'ram@0x0': pages });
    // One Worker reads the larger pack: it maps for the save when the other has long merged what the save has listed.
    const checked = store.check({ readData: true });
    const begun = store.beginSave({ parent: null });
    assert.equal(await store.tidy(), null);
    const session = await begun;
    await checked;
    assert.equal(segmentsOf(dir).length, 1);
    await session.store(new MemorySource({ 'ram@0x0': fewer }));
    const { newChunks } = await session.commit(machineMetadata());
    assert.ok(newChunks <= 40, `${newChunks} new chunks, though only those of the manifest can be new`);
  });

  for (const [what, harm] of Object.entries({
    missing: unlinkSync,
    torn: (path: string) => truncateSync(path, 500),
    'of another kind': (path: string) => writeFileSync(path, Buffer.alloc(2000)),
    longer: (path: string) => writeFileSync(path, Buffer.alloc(16), { flag: 'a' }),
  }))
    it(`do no harm when one is ${what}: saves go on, check says so, gc makes it anew`, async function () {
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

  it('with a flipped bit are not merged as if they were whole, and gc makes them anew', async function () {
    const { store, dir } = newStore(this);
    const all = [noise(1, 60), noise(2, 60)];
    for (const pages of all) await save(store, { 'ram@0x0': pages });
    const [first] = segmentsOf(dir) as [string];
    flip(join(dir, 'segments', first), 32 + 16 * 30 + 3, 5); // in a fingerprint
    const before = segmentsOf(dir);
    assert.match((await store.tidy())!.message, new RegExp(`segments/${first}: .* checksum`));
    assert.deepEqual(segmentsOf(dir), before);
    for (const seed of [3, 4]) await save(store, { 'ram@0x0': noise(seed, 60) });
    assert.equal(await store.tidy(), null, 'what is newer is merged without it');
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

  it('show every flipped bit to check', async function () {
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

  it('of many entries show every flipped bit of the filter, and a filter of others', function () {
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
    assert.deepEqual([offset, why], [filterAt, 'the filter is not that of the entries']);
  });

  it('claim no more than there is', function () {
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
    ['are cut short while they are mapped', 'none'],
    ['are cut short after another SIGBUS was heard by a handler', 'heard'],
  ] as const)
    it(`that ${what} read as zeros and end no process`, function () {
      const { dir } = newStore(this);
      const child = spawnSync(process.execPath, [busErrorChild, dir, segmentFile(7), which], {
        encoding: 'utf8',
      });
      assert.equal(child.signal, null);
      assert.equal(child.stdout, '0 0\n', child.stderr);
    });

  for (const [what, which] of [
    ['sent by somebody', 'sent'],
    ['of another mapping', 'elsewhere'],
  ] as const)
    it(`leave a SIGBUS ${what} what it is: the end of the process`, function () {
      const { dir } = newStore(this);
      const child = spawnSync(process.execPath, [busErrorChild, dir, segmentFile(7), which], {
        encoding: 'utf8',
        cwd: dir, // where a core file may go
      });
      assert.deepEqual([child.signal, child.stdout], ['SIGBUS', ''], child.stderr);
    });

  it('are merged by several processes at once without losing any', async function () {
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
    assert.deepEqual(await store.gc({ dryRun: true }), { removedChunks: 0, freedBytes: 0 });
    assert.equal(segmentsOf(dir).length, 1);
  });
});
