import assert from 'node:assert/strict';
import { FingerprintTable, MAX_CANDIDATES, Segment } from '../../../../src/store/segment/fingerprints.js';
import { mergeEntries, sortEntries } from '../../../../src/store/segment/sorted-entries.js';
import { seeded } from '../../../store/scratch.js';

const found = (
  place: { find(l: number, h: number, p: Uint32Array, n: number): number },
  low: number,
  high: number,
) => {
  const places = new Uint32Array(MAX_CANDIDATES * 2);
  const count = place.find(low, high, places, 0);
  return Array.from({ length: count }, (_, i) => `${places[2 * i]}/${places[2 * i + 1]}`).sort();
};

/** Entries whose fingerprints are those that `spread` makes of random numbers. */
function entries(seed: number, count: number, spread: (random: number) => [number, number]): Uint32Array {
  const next = seeded(seed);
  const words = new Uint32Array(count * 4);
  for (let i = 0; i < count; i++) words.set([...spread(next()), 1 + (next() % 3), i], i * 4);
  return words;
}

const shapes: Record<string, (random: number) => [number, number]> = {
  'spread evenly': (random) => [Math.imul(random, 2654435761) >>> 0, random],
  'of 4 bits': (random) => [random & 15, 0],
  'equal in the high half': (random) => [random, 7],
  'the lowest and highest': (random) => [random & 3, random & 1 ? 0xffffffff : 0],
  'in steps': (random) => [random & 1, (random & 0xff) << 24],
};

const segmentOf = (words: Uint32Array) => new Segment(sortEntries(words));

/** The words in parts, each valid until the next, as those of a file. */
function* inParts(words: Uint32Array): Generator<Uint32Array> {
  const part = new Uint32Array(4 * 7);
  for (let at = 0; at < words.length; at += part.length) {
    const some = words.subarray(at, at + part.length);
    part.set(some);
    yield part.subarray(0, some.length);
  }
  part.fill(0xffffffff);
}

function merged(sources: Uint32Array[], keep?: (pack: number, chunk: number) => boolean): Uint32Array {
  const words: number[] = [];
  for (const part of mergeEntries(sources.map(inParts), keep)) words.push(...part);
  return Uint32Array.from(words);
}

describe('fingerprints', () => {
  for (const [name, spread] of Object.entries(shapes)) {
    it(`are found in a segment when they are ${name}`, () => {
      for (const count of [0, 1, 2, 33, 1000, 5000]) {
        const words = entries(count, count, spread);
        const segment = segmentOf(words);
        assert.equal(segment.count, count);
        const expected = new Map<string, Set<string>>();
        for (let i = 0; i < words.length; i += 4) {
          const key = `${words[i]} ${words[i + 1]}`;
          if (!expected.has(key)) expected.set(key, new Set());
          expected.get(key)!.add(`${words[i + 2]}/${words[i + 3]}`);
        }
        for (const [key, places] of expected) {
          const [low, high] = key.split(' ').map(Number) as [number, number];
          const got = found(segment, low, high);
          assert.equal(got.length, Math.min(places.size, MAX_CANDIDATES), key);
          for (const place of got) assert.ok(places.has(place));
        }
        for (const [low, high] of [
          [0, 3],
          [5, 0xfffffffe],
          [99, 7],
        ] as const)
          if (!expected.has(`${low} ${high}`)) assert.deepEqual(found(segment, low, high), []);
      }
    });

    it(`stay sorted and complete through a merge when they are ${name}`, () => {
      const all = entries(3, 900, spread);
      const parts = [
        all.slice(0, 4 * 100),
        all.slice(4 * 100, 4 * 101),
        all.slice(4 * 101),
        new Uint32Array(0),
      ];
      const sorted = parts.map(sortEntries);
      assert.deepEqual(merged(sorted), sortEntries(all));
      const kept = merged(sorted, (pack) => pack !== 2);
      for (let i = 0; i < kept.length; i += 4) assert.notEqual(kept[i + 2], 2);
      assert.equal(kept.length / 4, all.filter((_, i) => i % 4 === 2).filter((pack) => pack !== 2).length);
    });
  }

  it('of a merge have their sources closed, also when the merge is abandoned', () => {
    let ended = 0;
    function* source(): Generator<Uint32Array> {
      try {
        for (let i = 0; i < 200_000; i++) yield Uint32Array.of(i, 0, 1, i);
      } finally {
        ended++;
      }
    }
    for (const _ of mergeEntries([source(), source()])) break;
    assert.equal(ended, 2);
    for (const _ of mergeEntries([source()]));
    assert.equal(ended, 3);
  });

  it('are found in a table while it grows', () => {
    const table = new FingerprintTable();
    const words = entries(1, 20000, shapes['spread evenly']!);
    for (let i = 0; i < words.length; i += 4)
      table.add(words[i]!, words[i + 1]!, words[i + 2]!, words[i + 3]!);
    assert.equal(table.count, 20000);
    for (let i = 0; i < words.length; i += 4)
      assert.deepEqual(found(table, words[i]!, words[i + 1]!), [`${words[i + 2]}/${words[i + 3]}`]);
    assert.deepEqual(found(table, 1, 1), []);
    for (let i = 0; i < MAX_CANDIDATES + 3; i++) table.add(5, 5, 1, i);
    assert.equal(found(table, 5, 5).length, MAX_CANDIDATES);
    table.clear();
    assert.equal(table.count, 0);
    assert.deepEqual(found(table, 5, 5), []);
    table.add(5, 5, 2, 7);
    assert.deepEqual(found(table, 5, 5), ['2/7']);
  });

  /** Patterns of fingerprints; some of them collided in a table with a fixed hash. */
  const patterns: Record<string, (i: number) => [low: number, high: number]> = {
    'that differ in the high half only': (i) => [7, i],
    'whose halves cancel each other': (i) => [(i >>> 7) ^ 5, i],
    'that are numbered': (i) => [i, 0],
    'of multiples of 2^20': (i) => [(i << 20) >>> 0, i >>> 12],
  };
  for (const [name, pattern] of Object.entries(patterns))
    it(`are found after a few probes when a guest chooses those ${name}`, () => {
      const table = new FingerprintTable();
      const count = 30_000;
      for (let i = 0; i < count; i++) {
        const [low, high] = pattern(i);
        table.add(low, high, 1, i);
      }
      let total = 0;
      for (let i = 0; i < count; i++) total += table.probes(...pattern(i));
      // 1.5 to 2.5 are expected at a load of a quarter to a half. Random words hardly vary that.
      assert.ok(total / count < 10, `${total / count} probes a search`);
    });

  it('are hashed with other random words in each table', () => {
    const probesOf = (): string => {
      const table = new FingerprintTable();
      for (let i = 0; i < 2000; i++) table.add(i * 3, i, 1, i);
      return Array.from({ length: 2000 }, (_, i) => table.probes(i * 3, i)).join();
    };
    assert.notEqual(probesOf(), probesOf());
  });
});
