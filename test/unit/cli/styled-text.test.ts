import assert from 'node:assert/strict';
import { hasColors, joined, printable, rendered, styled, text } from '../../../src/cli/styled-text.js';

describe('styled text', () => {
  it('escapes control and format characters in untrusted text', () => {
    assert.equal(printable('a\x1b[2Jb\n\x9b'), 'a\\x1b[2Jb\\x0a\\x9b');
    assert.equal(printable('Größe ✓ 🙂'), 'Größe ✓ 🙂');
    assert.equal(printable('a\u202eb\u200b\ufeff\u2028\u00ad'), 'a\\u202eb\\u200b\\ufeff\\u2028\\xad');
    assert.equal(printable('\u{e0041}'), '\\u{e0041}');
    assert.equal(printable('a\ud83db'), 'a\\ud83db', 'a lone surrogate');
  });

  it('has escape sequences only where colors are wanted', () => {
    const shown = text`${styled('bad', 'livesnap:')} no ${styled(null, 'such')} machine`;
    assert.equal(rendered(shown, true), '\x1b[31mlivesnap:\x1b[39m no such machine');
    assert.equal(rendered(shown, false), 'livesnap: no such machine');
    assert.equal(`${shown}`, 'livesnap: no such machine');
    assert.equal(rendered(styled('good', ''), true), '');
  });

  it('joins parts and keeps their styles', () => {
    const lines = joined(['a', styled('caution', 'b'), joined(['c', 'd'], ' ')]);
    assert.equal(rendered(lines, true), 'a\n\x1b[33mb\x1b[39m\nc d');
    assert.equal(String(joined([])), '');
  });

  it('escapes control characters in every part, with and without colors', () => {
    const evil = '\x1b[31m\u202e';
    const shown = text`${evil} ${styled('heading', evil)}`;
    assert.equal(rendered(shown, false), '\\x1b[31m\\u202e \\x1b[31m\\u202e');
    assert.equal(rendered(shown, true), '\\x1b[31m\\u202e \x1b[1m\\x1b[31m\\u202e\x1b[22m');
  });

  it('has colors on a terminal that knows them, unless NO_COLOR or CI is set', () => {
    const terminal = { isTTY: true };
    const TERM = 'xterm-256color';
    assert.equal(hasColors(terminal, { TERM }), true);
    assert.equal(hasColors(terminal, { TERM, NO_COLOR: '', CI: '' }), true, 'empty variables count as unset');
    for (const env of [{ TERM, NO_COLOR: '1' }, { TERM, CI: 'true' }, { TERM: 'dumb' }, { TERM: '' }, {}])
      assert.equal(hasColors(terminal, env), false, JSON.stringify(env));
    assert.equal(hasColors({ isTTY: false }, { TERM }), false);
    assert.equal(hasColors({}, { TERM }), false);
  });
});
