import assert from 'node:assert/strict';
import { hasStyles, styled } from '../../../src/cli/styles.js';

describe('styles', () => {
  it('are for terminals that have them, unless NO_COLOR is set', () => {
    const terminal = { isTTY: true };
    assert(hasStyles(terminal, { TERM: 'xterm' }));
    assert(hasStyles(terminal, { NO_COLOR: '' }), 'an empty value does not count');
    assert(!hasStyles({}, { TERM: 'xterm' }), 'a pipe');
    assert(!hasStyles(terminal, { TERM: 'dumb' }));
    assert(!hasStyles(terminal, { NO_COLOR: '1', TERM: 'xterm' }));
    assert.equal(styled('text', 'red', {}), 'text');
  });
});
