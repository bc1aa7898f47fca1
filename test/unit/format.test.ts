import assert from 'node:assert/strict';
import {
  formatAgo,
  formatBytes,
  formatCount,
  formatDuration,
  formatRatio,
  formatTags,
  formatTime,
  nounFor,
  shortId,
} from '../../src/format.js';

describe('the formatter', () => {
  it('writes sizes in binary units with at most three digits', () => {
    const cases: [number, string][] = [
      [0, '0 B'],
      [999, '999 B'],
      [1000, '1.0 KiB'],
      [1023, '1.0 KiB'],
      [1536, '1.5 KiB'],
      [2 ** 28, '256 MiB'],
      [5 * 2 ** 30, '5 GiB'],
      [123_456_789, '118 MiB'],
      [2 ** 53, '8 PiB'],
    ];
    for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
  });

  it('writes durations in the unit that fits', () => {
    assert.deepEqual([0.41, 12.3, 1234, 61_000].map(formatDuration), ['0.4 ms', '12 ms', '1.2 s', '61 s']);
  });

  it('writes counts with thousands separators, and plurals', () => {
    assert.equal(formatCount(49_120), '49,120');
    assert.deepEqual(
      [0, 1, 2, 1000].map((count) => formatCount(count, 'chunk')),
      ['0 chunks', '1 chunk', '2 chunks', '1,000 chunks'],
    );
    assert.deepEqual(
      [0, 1, 2].map((count) => nounFor(count, 'tag')),
      ['tags', 'tag', 'tags'],
    );
  });

  it('writes ages in the largest unit of which there are two', () => {
    const nowMs = Date.parse('2026-11-23T16:00:00Z');
    const [second, hour, day] = [1000, 3_600_000, 86_400_000];
    const cases: [number, string][] = [
      [0, 'just now'],
      [999, 'just now'],
      [second, '1 second ago'],
      [119 * second, '119 seconds ago'],
      [120 * second, '2 minutes ago'],
      [2 * hour - 1, '119 minutes ago'],
      [2 * hour, '2 hours ago'],
      [47 * hour, '47 hours ago'],
      [2 * day, '2 days ago'],
      [13 * day, '13 days ago'],
      [14 * day, '2 weeks ago'],
      [60 * day, '2 months ago'],
      [729 * day, '24 months ago'],
      [730 * day, '2 years ago'],
      [-999, 'just now'],
      [-9 * 60 * second, 'in 9 minutes'],
    ];
    for (const [ageMs, text] of cases)
      assert.equal(formatAgo(new Date(nowMs - ageMs).toISOString(), nowMs), text);
    assert.equal(formatAgo('no time', nowMs), 'no time');
  });

  it('writes tags as a list, and none as null', () => {
    assert.deepEqual([[], ['a'], ['a', 'b']].map(formatTags), [null, 'a', 'a, b']);
  });

  it('writes ratios, local times and short IDs', () => {
    assert.deepEqual([1, 3.14, 123.4].map(formatRatio), ['1.0 : 1', '3.1 : 1', '123 : 1']);
    assert.match(formatTime('2026-11-23T16:00:07.000Z'), /^2026-11-2[234] \d\d:\d\d:07$/);
    assert.equal(formatTime('no time'), 'no time');
    assert.equal(shortId('0123456789abcdef'), '0123456789ab');
  });
});
