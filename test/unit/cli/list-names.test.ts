import assert from 'node:assert/strict';
import { harmless } from '../../../src/cli/list-names.js';

describe('the names for completion scripts', () => {
  it('are sorted, each once, without any that a shell could take for something else', () => {
    const hostile = ['$(x)', '`x`', 'a b', 'a\nb', '-rf', '~', '../a', 'a;b', "a'b", 'a*', '', '\u202e'];
    assert.deepEqual(harmless(['web', ...hostile, 'a.b-c_d', '705d4847a1a6', 'web']), [
      ...['705d4847a1a6', 'a.b-c_d', 'web'],
    ]);
  });
});
