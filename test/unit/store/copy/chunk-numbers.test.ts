import assert from 'node:assert/strict';
import { ChunkNumbers } from '../../../../src/store/copy/chunk-numbers.js';
import { seeded } from '../../../store/scratch.js';

describe('the chunk numbers of a copy', () => {
  it('ascend by place, whatever the order in which chunks were added', () => {
    const next = seeded(1);
    const numbers = new ChunkNumbers();
    const places = new Map<string, { pack: number; chunk: number }>();
    const packs = [1, 2, 700, 0xffffffff];
    for (let i = 0; i < 5000; i++) {
      const place = { pack: packs[next() % 4]!, chunk: next() % (i % 2 ? 100 : 32768) };
      places.set(`${place.pack}/${place.chunk}`, place);
      numbers.add(place.pack, place.chunk);
    }
    for (const chunk of [0, 31, 32, 511, 512, 32767]) {
      assert.equal(numbers.has(9, chunk), false);
      numbers.add(9, chunk);
      numbers.add(9, chunk);
      assert.equal(numbers.has(9, chunk), true);
      places.set(`9/${chunk}`, { pack: 9, chunk });
    }
    numbers.number();
    const sorted = [...places.values()].sort((a, b) => a.pack - b.pack || a.chunk - b.chunk);
    assert.equal(numbers.size, sorted.length);
    assert.deepEqual([...numbers.places()], sorted);
    sorted.forEach(({ pack, chunk }, i) => {
      assert.equal(numbers.of(pack, chunk), i);
    });
  });
});
