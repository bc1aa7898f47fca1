import assert from 'node:assert/strict';
import { exactName } from '../../../src/cli/exact-arguments.js';

describe('exactName', () => {
  const line =
    (...args: string[]) =>
    () =>
      args.map((arg) => Buffer.from(arg, 'latin1'));

  it('gives a name that is UTF-8 as it is, without looking', () => {
    assert.equal(
      exactName('größe', () => assert.fail()),
      'größe',
    );
  });

  it('gives the bytes of a name that is not UTF-8', () => {
    const given = line('node', 'main.js', 'put', 'a\xffb', '--tag', 'x');
    assert.deepEqual(exactName('a\ufffdb', given), Buffer.from('a\xffb', 'latin1'));
  });

  it('gives a name that has U+FFFD itself, and one that is not on the command line', () => {
    const named = () => [Buffer.from('a\ufffd')];
    assert.equal(exactName('a\ufffd', named).toString(), 'a\ufffd');
    assert.equal(exactName('b\ufffd', named), 'b\ufffd');
    assert.equal(
      exactName('b\ufffd', () => null),
      'b\ufffd',
    );
  });

  it('does not choose between arguments that look alike', () => {
    assert.equal(exactName('a\ufffd', line('a\xff', 'a\xfe')), 'a\ufffd');
    assert.deepEqual(exactName('a\ufffd', line('a\xff', 'a\xff')), Buffer.from('a\xff', 'latin1'));
  });
});
