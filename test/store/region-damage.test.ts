import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import {
  closeRegionReader,
  openRegionReader,
  readRegion,
  regionReaderError,
} from '../../src/native/region-reader.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { blocksOf, bytesOf, copyAsGeneration, failuresOf, openRegion, packNames, reseal } from './regions.js';
import { dropScratch, flipBit, newStore, noise, save, seeded, textPages } from './scratch.js';

const { EBADMSG, EOPNOTSUPP } = constants.errno;
const SEED = Number(process.env.LIVESNAP_SEED ?? 20260101);
const BLOCK_BYTES = 512 * PAGE_BYTES;

describe(`the reader of a stored region in a damaged store (seed ${SEED})`, function () {
  this.timeout(120_000);
  afterEach(function () {
    dropScratch(this);
  });

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

  it('fails for a codec, a digest and a version that it does not know', async function () {
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
      [(bytes) => void bytes.writeUInt16LE(9, bytes.length - 34), /^the pack has digests of ID 9$/],
      [(bytes) => void bytes.writeUInt32LE(3, 8), /^the file has format version 3$/],
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
