import assert from 'node:assert/strict';
import { TerminalText } from '../../../src/cli/terminal-text.js';

describe('output of a guest for a terminal', () => {
  const shown = (...parts: readonly (string | Uint8Array)[]): string => {
    const text = new TerminalText();
    const all = parts.map((part) => text.next(typeof part === 'string' ? Buffer.from(part) : part));
    return all.join('|') + (text.end() === '' ? '' : `|${'rest'}`);
  };

  it('has no escape sequences and no controls but tabs and line feeds', () => {
    assert.equal(shown('a\x1b[31mred\x1b[0m\tb\r\nc\x07\x9b2J\u202e'), 'ared\tb\nc');
    assert.equal(shown('\x1b]0;title\x07x\x1b(By'), 'xy');
  });

  it('holds half of a sequence or of a character until the rest comes', () => {
    assert.equal(shown('a\x1b', '[3', '1mb'), 'a||b');
    const euro = Buffer.from('€');
    assert.equal(shown(euro.subarray(0, 1), euro.subarray(1)), '|€');
  });

  it('does not hold what only begins like a sequence', () => {
    assert.match(shown(`\x1b[${'1;'.repeat(60)}`, 'x'), /x$/);
  });
});
