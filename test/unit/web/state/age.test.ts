import assert from 'node:assert/strict';
import { formatAge } from '../../../../src/web/state/age.js';

describe('an age', () => {
  it('has one unit, rounded down', () => {
    const at = Date.parse('2026-01-01T00:00:00Z');
    const age = (ms: number): string => formatAge(new Date(at - ms).toISOString(), at);
    assert.deepEqual([0, 999, 1000, 59_999, 240_000, 7_200_000, 172_800_000, 400 * 86_400_000].map(age), [
      'now',
      'now',
      '1 s',
      '59 s',
      '4 min',
      '2 h',
      '2 d',
      '1 y',
    ]);
    assert.equal(formatAge(new Date(at + 5000).toISOString(), at), 'now', 'a clock that is ahead');
  });
});
