import assert from 'node:assert/strict';
import { exactName, requireUtf8 } from '../../../src/cli/exact-arguments.js';
import { LivesnapError } from '../../../src/errors.js';

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

describe('requireUtf8', () => {
  const given =
    (...values: string[]) =>
    () =>
      values.map((value) => Buffer.from(value, 'latin1'));

  it('refuses a name whose bytes are not UTF-8, as an argument, after = and in the environment', () => {
    for (const value of ['/a\xff', '--store=/a\xff', 'LIVESNAP_STORE=/a\xff'])
      assert.throws(
        () => requireUtf8('/a\ufffd', given('x', value)),
        (error) => error instanceof LivesnapError && error.code === 'USAGE',
      );
  });

  it('returns a name that is UTF-8, and one that has U+FFFD itself', () => {
    assert.equal(
      requireUtf8('/größe', () => assert.fail()),
      '/größe',
    );
    assert.equal(
      requireUtf8('/a\ufffd', () => [Buffer.from('--store=/a\ufffd')]),
      '/a\ufffd',
    );
    assert.equal(requireUtf8('/a\ufffd', given('--store=/b\xff')), '/a\ufffd');
  });
});
