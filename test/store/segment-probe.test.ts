import assert from 'node:assert/strict';
import { closeSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { MAX_CANDIDATES, Segment } from '../../src/store/segment/fingerprints.js';
import { type SegmentRow, segmentFile } from '../../src/store/segment/segment-file.js';
import { SegmentProbe } from '../../src/store/segment/segment-probe.js';
import { writeSegment } from '../../src/store/segment/segment-writer.js';
import { sortEntries } from '../../src/store/segment/sorted-entries.js';
import { dropScratch, newStore, seeded } from './scratch.js';

type Find = Pick<Segment, 'find'>;

function found(place: Find, low: number, high: number): string[] {
  const places = new Uint32Array(MAX_CANDIDATES * 2);
  const count = place.find(low, high, places, 0);
  return Array.from({ length: count }, (_, i) => `${places[2 * i]}/${places[2 * i + 1]}`).sort();
}

describe('a probe of a segment', () => {
  afterEach(function () {
    dropScratch(this);
  });

  function write(dir: string, words: Uint32Array): SegmentRow {
    const { row, fd } = writeSegment(pageOps, dir, 7, [words], words.length / 4)!;
    closeSync(fd);
    return row;
  }

  for (const count of [1, 2, 255, 256, 257, 511, 512, 5000, 60_000])
    it(`finds what a search in memory finds (entries: ${count})`, function () {
      const { dir } = newStore(this);
      const random = seeded(count);
      const words = new Uint32Array(4 * count);
      for (let i = 0; i < count; i++) words.set([random(), random(), 1 + (i % 9), i], 4 * i);
      words.copyWithin(0, 4, 6); // two entries have the same fingerprint
      const sorted = sortEntries(words);
      const segment = new Segment(sorted);
      const probe = new SegmentProbe(dir, write(dir, sorted));
      for (let at = 0; at < sorted.length; at += count > 1000 ? 404 : 4) {
        const [low, high] = [sorted[at]!, sorted[at + 1]!];
        const there = found(segment, low, high);
        const got = found(probe, low, high);
        // A probe misses the second entry of a fingerprint if a read ends between the two.
        assert.ok(got.length > 0 && got.every((place) => there.includes(place)), `${at / 4}`);
      }
      for (let i = 0; i < 2000; i++) {
        const [low, high] = [random(), random()];
        assert.deepEqual(found(probe, low, high), found(segment, low, high));
      }
      for (const [low, high] of [
        [0, 0],
        [0xffffffff, 0xffffffff],
        [1, 0xffffffff],
      ] as const)
        assert.deepEqual(found(probe, low, high), found(segment, low, high));
      probe.close();
    });

  it('ends when many entries have the same fingerprint, and when the file was truncated', function () {
    const { dir } = newStore(this);
    const words = new Uint32Array(4 * 50_000);
    for (let i = 0; i < 50_000; i++) words.set([i % 16, 0, 1, i], 4 * i);
    const row = write(dir, sortEntries(words));
    const probe = new SegmentProbe(dir, row);
    for (let low = 0; low < 17; low++) assert.ok(found(probe, low, 0).length <= MAX_CANDIDATES);
    truncateSync(join(dir, segmentFile(7)), 1000);
    for (let low = 0; low < 17; low++) assert.ok(found(probe, low, 0).length <= MAX_CANDIDATES);
    probe.close();
    writeFileSync(join(dir, segmentFile(7)), 'another');
    assert.throws(() => new SegmentProbe(dir, row), { code: 'DAMAGED' });
  });
});
