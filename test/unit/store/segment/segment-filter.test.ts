import assert from 'node:assert/strict';
import { FilterBuilder, filterBlocks, SegmentFilter } from '../../../../src/store/segment/segment-filter.js';
import { seeded } from '../../../store/scratch.js';

type Spread = (random: () => number) => [low: number, high: number];

const SHAPES: Record<string, Spread> = {
  'spread evenly': (random) => [random(), random()],
  'of 4 bits': (random) => [random() & 15, 0],
  'the lowest and highest': (random) => [random() & 1 ? 0xffffffff : 0, random() & 1 ? 0xffffffff : 0],
  'equal in the low half': (random) => [7, random()],
};

function entriesOf(count: number, spread: Spread): Uint32Array {
  const random = seeded(count);
  const words = new Uint32Array(4 * count);
  for (let i = 0; i < count; i++) words.set([...spread(random), 1, i], 4 * i);
  return words;
}

function filterOf(entries: Uint32Array, maxEntries = entries.length / 4): Uint8Array {
  const builder = new FilterBuilder(maxEntries);
  for (let at = 0; at < entries.length; at += 4 * 300) builder.add(entries.subarray(at, at + 4 * 300));
  return builder.finish(entries.length / 4);
}

const opened = ({ buffer, byteLength }: Uint8Array): SegmentFilter =>
  new SegmentFilter(new Uint32Array(buffer, 0, byteLength / 4));

describe('the filter of a segment', () => {
  it('has the smallest power of two of blocks with ten bits an entry, and none for few entries', () => {
    for (const [entries, blocks] of [
      [0, 0],
      [511, 0],
      [512, 16],
      [819, 16],
      [820, 32],
      [1638, 32],
      [1639, 64],
      [53_687_091, 1 << 20],
      [53_687_092, 1 << 21],
      [1 << 26, 1 << 21],
    ] as const)
      assert.equal(filterBlocks(entries), blocks, `${entries}`);
  });

  for (const [name, spread] of Object.entries(SHAPES))
    it(`contains every fingerprint of the segment when they are ${name}`, () => {
      for (const count of [512, 1000, 20_000]) {
        const entries = entriesOf(count, spread);
        const filter = opened(filterOf(entries));
        for (let at = 0; at < entries.length; at += 4)
          assert.ok(filter.mayContain(entries[at]!, entries[at + 1]!), `entry ${at / 4} of ${count}`);
      }
    });

  it('is the same when fewer entries came than were announced', () => {
    const entries = entriesOf(900, SHAPES['spread evenly']!);
    for (const announced of [901, 2000, 60_000])
      assert.deepEqual(filterOf(entries, announced), filterOf(entries));
    assert.equal(filterOf(entriesOf(511, SHAPES['spread evenly']!), 60_000).length, 0);
  });

  it('contains few other fingerprints', () => {
    for (const count of [512, 819, 20_000, 26_000]) {
      const filter = opened(filterOf(entriesOf(count, SHAPES['spread evenly']!)));
      const random = seeded(77);
      let falsePositives = 0;
      for (let i = 0; i < 20_000; i++) if (filter.mayContain(random(), random())) falsePositives++;
      assert.ok(falsePositives < 20_000 * 0.04, `${falsePositives} of 20000 for ${count} entries`);
    }
  });
});
