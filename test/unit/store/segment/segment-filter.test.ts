import assert from 'node:assert/strict';
import { FilterBuilder, filterBlocks, SegmentFilter } from '../../../../src/store/segment/segment-filter.js';
import { seeded } from '../../../store/scratch.js';

type Spread = (random: () => number) => [low: number, high: number];

const SHAPES: Record<string, Spread> = {
  spread: (random) => [random(), random()],
  'in 4 bits': (random) => [random() & 15, 0],
  'at the ends': (random) => [random() & 1 ? 0xffffffff : 0, random() & 1 ? 0xffffffff : 0],
  'of one low half': (random) => [7, random()],
};

function entriesOf(count: number, spread: Spread): Uint32Array {
  const random = seeded(count);
  const words = new Uint32Array(4 * count);
  for (let i = 0; i < count; i++) words.set([...spread(random), 1, i], 4 * i);
  return words;
}

function filterOf(entries: Uint32Array, mostEntries = entries.length / 4): Uint8Array {
  const builder = new FilterBuilder(mostEntries);
  for (let at = 0; at < entries.length; at += 4 * 300) builder.add(entries.subarray(at, at + 4 * 300));
  return builder.finish(entries.length / 4);
}

const opened = ({ buffer, byteLength }: Uint8Array): SegmentFilter =>
  new SegmentFilter(new Uint32Array(buffer, 0, byteLength / 4));

describe('the filter of a segment', () => {
  it('is the smallest power of two of blocks that has ten bits an entry, and none for few entries', () => {
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
    it(`has every fingerprint that is in the segment, where they are ${name}`, () => {
      for (const count of [512, 1000, 20_000]) {
        const entries = entriesOf(count, spread);
        const filter = opened(filterOf(entries));
        for (let at = 0; at < entries.length; at += 4)
          assert.ok(filter.mayHave(entries[at]!, entries[at + 1]!), `entry ${at / 4} of ${count}`);
      }
    });

  it('is the same when more entries were foreseen than came', () => {
    const entries = entriesOf(900, SHAPES.spread!);
    for (const foreseen of [901, 2000, 60_000])
      assert.deepEqual(filterOf(entries, foreseen), filterOf(entries));
    assert.equal(filterOf(entriesOf(511, SHAPES.spread!), 60_000).length, 0);
  });

  it('has few of the fingerprints that are not', () => {
    for (const count of [512, 819, 20_000, 26_000]) {
      const filter = opened(filterOf(entriesOf(count, SHAPES.spread!)));
      const random = seeded(77);
      let said = 0;
      for (let i = 0; i < 20_000; i++) if (filter.mayHave(random(), random())) said++;
      assert.ok(said < 20_000 * 0.04, `${said} of 20000 for ${count} entries`);
    }
  });
});
