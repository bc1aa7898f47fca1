import assert from 'node:assert/strict';
import { BitSet } from '../../src/bit-set.js';

function contents(bitmap: BitSet): number[] {
  const into = new Uint32Array(7);
  const all: number[] = [];
  for (let from = 0; ; ) {
    const taken = bitmap.take(from, into, into.length);
    if (taken === 0) return all;
    all.push(...into.subarray(0, taken));
    from = into[taken - 1]!;
  }
}

const sequence = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

describe('BitSet', () => {
  it('holds ranges that begin and end anywhere in a word', () => {
    for (const [first, count] of [
      [0, 1],
      [31, 2],
      [0, 32],
      [5, 90],
      [32, 64],
      [63, 1],
      [95, 5],
    ] as const) {
      const bitmap = new BitSet(100);
      bitmap.addRange(first, count);
      assert.equal(bitmap.count(), count, `${first}+${count}`);
      assert.deepEqual(contents(bitmap), sequence(first, count), `${first}+${count}`);
      assert.equal(bitmap.count(), 0);
    }
  });

  it('copies the members of bytes', () => {
    const bytes = Uint8Array.from([0b1000_0001, 0, 0, 0, 0b10]);
    const bitmap = BitSet.from(bytes);
    bytes.fill(0);
    assert.deepEqual(contents(bitmap), [0, 7, 33]);
  });

  it('holds no member beyond its size', () => {
    const bitmap = new BitSet(100);
    bitmap.addRange(90, 1000);
    assert.deepEqual(contents(bitmap), sequence(90, 10));
  });

  it('joins another set', () => {
    const a = new BitSet(200);
    const b = new BitSet(200);
    a.addRange(31, 1);
    b.addRange(31, 2);
    b.addRange(199, 1);
    a.addAll(b);
    assert.deepEqual(contents(a), [31, 32, 199]);
    assert.equal(b.count(), 3);
  });

  it('has member 8m+n in bit n of byte m, as the kernel writes it', () => {
    const bitmap = new BitSet(64);
    bitmap.bytes[1] = 0x81;
    bitmap.bytes[7] = 0x80;
    assert.deepEqual(contents(bitmap), [8, 15, 63]);
  });

  it('gives its members in ascending order, and keeps them', () => {
    const set = new BitSet(100);
    assert.equal(set.isEmpty, true);
    for (const member of [99, 0, 31, 32, 63]) set.add(member);
    assert.equal(set.isEmpty, false);
    for (let run = 0; run < 2; run++) assert.deepEqual([...set], [0, 31, 32, 63, 99]);
  });

  it('takes members in order from where the last call ended, and keeps the rest', () => {
    const bitmap = new BitSet(64);
    bitmap.addRange(0, 64);
    const into = new Uint32Array(40);
    assert.equal(bitmap.take(0, into, 40), 40);
    assert.equal(bitmap.count(), 24);
    assert.equal(bitmap.take(39, into, 40), 24);
    assert.deepEqual([...into.subarray(0, 24)], sequence(40, 24));
  });
});
