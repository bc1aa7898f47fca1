import assert from 'node:assert/strict';
import { DirtyCount } from '../../../src/machine/dirty-count.js';

describe('DirtyCount', () => {
  let nowMs: number;
  /** What counting takes. */
  let takesMs: number;
  let counts: number;
  let bytes: number | null;
  let count: DirtyCount;
  beforeEach(() => {
    [nowMs, takesMs, counts, bytes] = [5000, 0, 0, 4096];
    count = new DirtyCount(
      () => {
        nowMs += takesMs;
        counts++;
        return bytes;
      },
      { nowMs: () => nowMs },
    );
  });

  it('counts nothing before the first save', () => {
    assert.equal(count.bytes(null), null);
    assert.equal(counts, 0);
  });

  it('counts again after a second, or when there is another snapshot', () => {
    assert.equal(count.bytes('a'), 4096);
    bytes = 8192;
    nowMs += 999;
    assert.equal(count.bytes('a'), 4096);
    nowMs += 1;
    assert.equal(count.bytes('a'), 8192);
    bytes = null;
    assert.equal(count.bytes('b'), null);
    assert.equal(counts, 3);
    bytes = 0;
    assert.equal(count.bytes('b'), 0, 'what was not known is asked again');
  });

  it('counts less often if it takes long', () => {
    takesMs = 50;
    count.bytes('a');
    nowMs += 4999;
    count.bytes('a');
    assert.equal(counts, 1);
    nowMs += 1;
    count.bytes('a');
    assert.equal(counts, 2);
  });
});
