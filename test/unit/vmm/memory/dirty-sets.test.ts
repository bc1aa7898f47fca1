import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { DirtySets, MAX_STORES } from '../../../../src/vmm/memory/dirty-sets.js';

const pages = (...members: number[]): BitSet => {
  const set = new BitSet(100);
  for (const member of members) set.add(member);
  return set;
};

describe('DirtySets', () => {
  it('keeps the changes since the last save to each store', () => {
    const sets = new DirtySets([100, 100]);
    assert.equal(sets.of('a'), null);
    sets.begin('a', 'a1');
    sets.add([pages(1), pages(2)]);
    sets.begin('b', 'b1');
    sets.add([pages(3), pages()]);
    assert.equal(sets.of('a')!.base, 'a1');
    assert.deepEqual([...sets.of('a')!.regions[0]!], [1, 3]);
    assert.deepEqual([...sets.of('a')!.regions[1]!], [2]);
    assert.deepEqual([...sets.of('b')!.regions[0]!], [3]);
    sets.begin('a', 'a2');
    assert.deepEqual([...sets.of('a')!.regions[0]!], []);
    assert.deepEqual([...sets.of('b')!.regions[0]!], [3]);
  });

  it('forgets the store that was saved to longest ago', () => {
    const sets = new DirtySets([100]);
    for (let i = 0; i < MAX_STORES; i++) sets.begin(`${i}`, `s${i}`);
    sets.begin('0', 'again');
    sets.begin('new', 'n');
    assert.equal(sets.of('1'), null);
    assert.equal(sets.of('0')!.base, 'again');
    assert.equal(sets.of('new')!.base, 'n');
  });
});
