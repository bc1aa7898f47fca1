import assert from 'node:assert/strict';
import { timeFormatter, timeOption, timeWithAge } from '../../../src/cli/time-option.js';

describe('the times of a list', () => {
  const iso = '2026-11-23T16:00:00.000Z';
  const nowMs = Date.parse(iso) + 3 * 60_000;

  it('are ages, or dates if that is asked for', () => {
    assert.equal(timeFormatter(undefined, nowMs)(iso), '3 minutes ago');
    assert.equal(timeFormatter('relative', nowMs)(iso), '3 minutes ago');
    assert.match(timeFormatter('absolute', nowMs)(iso)!, /^2026-11-2[34] \d\d:\d\d:00$/);
    for (const option of [undefined, 'absolute'] as const) assert.equal(timeFormatter(option)(null), null);
    assert.deepEqual(timeOption.parse!.words, ['relative', 'absolute']);
  });

  it('are both where there is room', () => {
    assert.match(timeWithAge(iso, nowMs)!, /^2026-11-2[34] \d\d:\d\d:00 \(3 minutes ago\)$/);
    assert.equal(timeWithAge(null, nowMs), null);
  });
});
