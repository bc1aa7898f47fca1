import assert from 'node:assert/strict';
import { ChunkSet } from '../../../../src/store/snapshot/chunk-set.js';
import { seeded } from '../../../store/scratch.js';

describe('a set of chunks', () => {
  it('has the chunks that were added, whether few or many of a pack', () => {
    const random = seeded(9);
    for (const most of [1, 63, 64, 65, 66, 3000, 32_768]) {
      const set = new ChunkSet();
      const model = new Map<number, Set<number>>([2, 7, 9].map((pack) => [pack, new Set()]));
      for (let i = 0; i < most; i++) {
        const pack = [2, 7, 9][random() % 3]!;
        const chunk = random() % 32_768;
        const chunks = model.get(pack)!;
        assert.equal(set.add(pack, chunk), !chunks.has(chunk));
        chunks.add(chunk);
      }
      assert.equal(
        set.size,
        [...model.values()].reduce((total, { size }) => total + size, 0),
      );
      for (const [pack, chunks] of model) {
        assert.equal(set.count(pack), chunks.size);
        const bits = set.bits(pack);
        for (let chunk = 0; chunk < 32_768; chunk++) {
          assert.equal(set.has(pack, chunk), chunks.has(chunk));
          assert.equal(((bits?.[chunk >> 3] ?? 0) >> (chunk & 7)) & 1, chunks.has(chunk) ? 1 : 0);
        }
      }
      assert.equal(set.has(3, 1), false);
      assert.equal(set.count(3), 0);
      assert.equal(set.add(2, 32_768), false, 'no pack has that many chunks');
    }
  });

  it('allocates no bitmap for each of many packs', () => {
    const set = new ChunkSet();
    const before = process.memoryUsage();
    for (let pack = 1; pack <= 100_000; pack++) set.add(pack * 40_000, pack % 32_768);
    const after = process.memoryUsage();
    assert.equal(set.size, 100_000);
    assert.ok(after.arrayBuffers - before.arrayBuffers < 1 << 20, 'bitmaps would be 400 MB');
  });
});
