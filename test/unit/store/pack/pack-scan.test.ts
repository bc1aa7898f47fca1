import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../../../src/native/pages.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import { DamageError } from '../../../../src/store/disk/damage.js';
import { FOOTER_BYTES, FRAME_BYTES, FRAME_CHUNKS } from '../../../../src/store/pack/pack-format.js';
import type { PackBytes, PackLists } from '../../../../src/store/pack/pack-lists.js';
import { PackReader } from '../../../../src/store/pack/pack-reader.js';
import { openDamagedPack, scanFrames } from '../../../../src/store/pack/pack-scan.js';
import { PackWriter } from '../../../../src/store/pack/pack-writer.js';
import { dropScratch, noise, scratchDir } from '../../../store/scratch.js';

const PACK = { number: 1, generation: 0 };
const FRAMES = 4;
const CONTENTS = noise(1, FRAMES * FRAME_CHUNKS);

/** A store's directory with one pack. */
function writePack(test: Mocha.Context): { dir: string; path: string } {
  const dir = scratchDir(test);
  mkdirSync(join(dir, 'packs'));
  const writer = new PackWriter(pageOps, dir, PACK.number, PACK.generation);
  const fingerprint = new Uint8Array(8);
  for (let at = 0; at < CONTENTS.length; at += PAGE_BYTES) {
    pageOps.hashPages(CONTENTS.subarray(at, at + PAGE_BYTES), 1, fingerprint);
    writer.append(CONTENTS, at, fingerprint, false);
  }
  writer.seal();
  writer.close();
  return { dir, path: join(dir, writer.file) };
}

/** The bytes of a file, of which the disk cannot read those at `badOffset`. */
function withBadSector(bytes: Buffer, badOffset: number): PackBytes {
  return {
    sizeBytes: bytes.length,
    readInto(into, offset, length) {
      if (offset <= badOffset && badOffset < offset + length)
        throw new DamageError('packs/00000001-0.pack', offset, 'the disk cannot read it');
      into.set(bytes.subarray(offset, offset + length));
    },
    close() {},
  };
}

const framesOf = ({ frames }: PackLists | PackReader): number[] => [...frames].map(({ offset }) => offset);

describe('a pack without a trailer', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is read from its frames', function () {
    const { dir, path } = writePack(this);
    const whole = new PackReader(pageOps, dir, PACK);
    truncateSync(path, whole.sizeBytes - FOOTER_BYTES);
    assert.throws(() => new PackReader(pageOps, dir, PACK), { code: 'DAMAGED', message: /not sealed/ });
    const reader = openDamagedPack(pageOps, dir, PACK);
    assert.equal(reader.isSealed, false);
    assert.deepEqual([...reader.frames], [...whole.frames]);
    assert.deepEqual(reader.numbers, whole.numbers);
    const raw = Buffer.alloc(FRAME_BYTES);
    for (let i = 0; i < FRAMES; i++) {
      reader.readFrame(i, raw);
      assert.deepEqual(raw, CONTENTS.subarray(i * FRAME_BYTES, (i + 1) * FRAME_BYTES));
    }
    assert.throws(() => reader.readIdentities(), { code: 'DAMAGED' });
    const { footer, frames, numbers, isSealed } = reader;
    const again = openDamagedPack(pageOps, dir, PACK, { footer, frames, numbers, isSealed });
    assert.deepEqual(framesOf(again), framesOf(reader));
    for (const opened of [whole, reader, again]) opened.close();
  });

  it('is read up to the first frame that does not match its checksum or that the disk cannot read', function () {
    const { dir, path } = writePack(this);
    const reader = new PackReader(pageOps, dir, PACK);
    const offsets = framesOf(reader);
    reader.close();
    const bytes = readFileSync(path);
    assert.deepEqual(framesOf(scanFrames(pageOps, withBadSector(bytes, bytes.length), PACK)), offsets);
    for (let bad = 0; bad < FRAMES; bad++) {
      const expected = offsets.slice(0, bad);
      for (const inFrame of [0, 8, 100, 5000]) {
        const at = offsets[bad]! + inFrame;
        const flipped = Buffer.from(bytes);
        flipped[at]! ^= 1;
        const lists = scanFrames(pageOps, withBadSector(flipped, bytes.length), PACK);
        assert.deepEqual(framesOf(lists), expected, `a bit flipped at ${at}`);
        assert.equal(lists.numbers.length, bad * FRAME_CHUNKS);
        const unreadable = scanFrames(pageOps, withBadSector(bytes, at), PACK);
        assert.deepEqual(framesOf(unreadable), expected, `unreadable at ${at}`);
      }
    }
  });
});
