import assert from 'node:assert/strict';
import { exactName } from '../../../src/cli/exact-arguments.js';

describe('exactName', () => {
  const line =
    (...args: string[]) =>
    () =>
      args.map((arg) => Buffer.from(arg, 'latin1'));

  it('returns a name that is UTF-8 without reading the command line', () => {
    assert.equal(
      exactName('größe', () => assert.fail()),
      'größe',
    );
  });

  it('returns the bytes of a name that is not UTF-8', () => {
    const given = line('node', 'main.js', 'put', 'a\xffb', '--tag', 'x');
    assert.deepEqual(exactName('a\ufffdb', given), Buffer.from('a\xffb', 'latin1'));
  });

  it('returns a name that contains U+FFFD, or that is not on the command line', () => {
    const named = () => [Buffer.from('a\ufffd')];
    assert.equal(exactName('a\ufffd', named).toString(), 'a\ufffd');
    assert.equal(exactName('b\ufffd', named), 'b\ufffd');
    assert.equal(
      exactName('b\ufffd', () => null),
      'b\ufffd',
    );
  });

  it('returns the text if different arguments decode to it', () => {
    assert.equal(exactName('a\ufffd', line('a\xff', 'a\xfe')), 'a\ufffd');
    assert.deepEqual(exactName('a\ufffd', line('a\xff', 'a\xff')), Buffer.from('a\xff', 'latin1'));
  });
});
