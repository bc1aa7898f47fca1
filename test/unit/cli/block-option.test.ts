import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { parseBlock } from '../../../src/cli/block-option.js';

describe('parseBlock', () => {
  it('reads an image file, whose path becomes absolute', () => {
    assert.deepEqual(parseBlock('path=a/b.img'), {
      source: { kind: 'file', path: resolve('a/b.img') },
      mode: 'rw',
      onError: 'pause',
    });
  });

  it('reads a snapshot, with or without a region', () => {
    assert.deepEqual(parseBlock('snapshot=debian').source, {
      kind: 'snapshot',
      snapshot: 'debian',
      region: null,
    });
    assert.deepEqual(parseBlock('ro,snapshot=debian:disk1,on-error=report'), {
      source: { kind: 'snapshot', snapshot: 'debian', region: 'disk1' },
      mode: 'ro',
      onError: 'report',
    });
  });

  it('takes two commas for one in a path', () => {
    assert.deepEqual(parseBlock('path=/a,,b,cow'), {
      source: { kind: 'file', path: '/a,b' },
      mode: 'cow',
      onError: 'pause',
    });
    assert.deepEqual(parseBlock('path=a,,,cow'), {
      source: { kind: 'file', path: resolve('a,') },
      mode: 'cow',
      onError: 'pause',
    });
  });

  for (const [text, message] of [
    ['', /unknown part ""/],
    ['disk.img', /unknown part "disk.img"/],
    ['ro', /neither path= nor snapshot=/],
    ['path=', /path= has no value/],
    ['path=a,path=b', /names more than one disk/],
    ['path=a,snapshot=b', /names more than one disk/],
    ['path=a,ro,cow', /exclude each other/],
    ['path=a,on-error=ignore', /unknown part "on-error=ignore"/],
    ['path=a,readonly', /unknown part "readonly"/],
    ['snapshot=a:', /is not SNAPSHOT or SNAPSHOT:REGION/],
    ['snapshot=:disk0', /is not SNAPSHOT or SNAPSHOT:REGION/],
  ] as const)
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseBlock(text), { code: 'USAGE', message });
    });
});
