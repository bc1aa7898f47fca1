import assert from 'node:assert/strict';
import { FinishedBlocks } from '../../../../src/store/save/finished-blocks.js';

const entry = (block: number, chunk = block) => ({
  ...{ region: 1, block, nonZeroPages: 3, digest: BigInt(chunk) },
  places: { pack: 1, chunk },
  fingerprints: { pack: 1, chunk: chunk + 1 },
});

describe('the finished blocks of a region', () => {
  it('are stored, zero or the base’s, and known by number in any order', () => {
    const blocks = new FinishedBlocks();
    assert.ok(blocks.isEmpty && !blocks.has(0) && !blocks.has(1e6));
    for (const number of [5000, 3, 70]) blocks.setStored(entry(number));
    blocks.setZero(4);
    blocks.setKept(100_000);
    assert.ok(!blocks.isEmpty);
    assert.deepEqual(
      [3, 4, 5, 70, 5000, 100_000].filter((n) => blocks.has(n)),
      [3, 4, 70, 5000, 100_000],
    );
    assert.deepEqual(
      [blocks.isZero(4), blocks.isZero(3), blocks.isKept(100_000), blocks.isKept(4)],
      [true, false, true, false],
    );
    assert.deepEqual(blocks.storedEntry(70), entry(70));
    assert.equal(blocks.storedEntry(4), null);
    assert.deepEqual(
      [...blocks.storedEntries()].map(({ block }) => block),
      [3, 70, 5000],
    );
  });

  it('can be deleted and finished again', () => {
    const blocks = new FinishedBlocks();
    blocks.setStored(entry(7));
    blocks.delete(7);
    assert.ok(blocks.isEmpty && !blocks.has(7));
    assert.deepEqual([...blocks.storedEntries()], []);
    blocks.setStored(entry(7, 99));
    assert.deepEqual([...blocks.storedEntries()], [entry(7, 99)]);
    blocks.setZero(7);
    assert.equal(blocks.storedEntry(7), null);
    blocks.delete(7);
    assert.ok(blocks.isEmpty);
  });
});
