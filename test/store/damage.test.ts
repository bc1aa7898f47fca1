import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import {
  dropScratch,
  fingerprintOf,
  flipBit,
  load,
  newStore,
  noise,
  save,
  seeded,
  textPages,
} from './scratch.js';

describe('damage of a store', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is reported by file, offset and snapshot, in a restore and in check', async function () {
    const { store, dir } = newStore(this);
    const mine = await save(store, { 'ram@0x0': noise(1, 100) });
    const other = await save(store, { 'ram@0x0': noise(2, 100) });
    const [pack] = readdirSync(join(dir, 'packs')).sort();
    const path = join(dir, 'packs', pack!);
    const frame = 32 + 3 * (16 + 32 + 65536); // header, three raw frames
    flipBit(path, frame + 500, 3);
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
    flipBit(path, frame + 500, 3);

    // Header, trailer and footer of the pack.
    const size = statSync(path).size;
    for (const offset of [3, 20, size - 3, size - 64 + 30, size - 70, size - 64 - 100 * 44]) {
      flipBit(path, offset);
      const verdict = await store.check({ readData: false });
      assert.equal(verdict.ok, false, `offset ${offset}`);
      assert.ok(verdict.problems.every(({ file }) => file === `packs/${pack}`));
      flipBit(path, offset);
    }
    flipBit(join(dir, 'snapshots', other.id), 60);
    assert.deepEqual(
      (await store.check({ readData: false })).problems.map(({ file, snapshots }) => [file, snapshots]),
      [[`snapshots/${other.id}`, [other.id]]],
    );
    await assert.rejects(store.openSnapshot(other.id), { code: 'DAMAGED', message: new RegExp(other.id) });
    await assert.rejects(store.gc({ dryRun: false }), { code: 'DAMAGED' }); // it cannot know what is referenced
    flipBit(join(dir, 'snapshots', other.id), 60);

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

  it('is found by check, whichever bit of a pack or a snapshot has flipped', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': Buffer.concat([textPages(1, 3), noise(1, 1)]) });
    const next = seeded(1);
    for (const file of [`packs/${readdirSync(join(dir, 'packs'))[0]}`, `snapshots/${id}`]) {
      const path = join(dir, file);
      const { size } = statSync(path);
      for (let i = 0; i < 150; i++) {
        const offset = i < 40 ? size - 1 - i * 5 : next() % size;
        const bit = next() % 8;
        flipBit(path, Math.max(0, offset), bit);
        const { ok } = await store.check({ readData: true });
        assert.equal(ok, false, `${file}, offset ${offset}, bit ${bit}`);
        flipBit(path, Math.max(0, offset), bit);
      }
    }
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
  });

  it('is found in an intact pack that holds other pages', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 40) });
    const [name] = readdirSync(join(dir, 'packs'));
    const original = readFileSync(join(dir, 'packs', name!));
    const fingerprints = 40; // after 40 pages come the two chunks of a manifest block
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

  it('is found in sizes and counts before they are used', async function () {
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
    newer.writeUInt32LE(3, 8);
    writeFileSync(path, newer);
    await assert.rejects(store.openSnapshot(id), { code: 'DAMAGED' }, 'a flipped bit is not a newer format');
    createHash('sha256')
      .update(newer.subarray(0, -32))
      .digest()
      .copy(newer, newer.length - 32);
    writeFileSync(path, newer);
    await assert.rejects(store.openSnapshot(id), { code: 'NEWER_FORMAT', message: /version 3/ });
    writeFileSync(path, good.subarray(0, 20));
    await assert.rejects(store.openSnapshot(id), { code: 'DAMAGED' });
    writeFileSync(path, good);
    const pack = join(dir, 'packs', readdirSync(join(dir, 'packs'))[0]!);
    const sealed = readFileSync(pack);
    for (const length of [0, 31, 96, sealed.length - 1, sealed.length - 64]) {
      writeFileSync(pack, sealed.subarray(0, length));
      await assert.rejects(load(store, id), { code: 'DAMAGED' }, `truncated to ${length}`);
    }
    writeFileSync(pack, sealed);
    await load(store, id);
  });
});
