import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isGlob, matchesGlob } from '../../src/glob.js';

describe('a pattern of names', () => {
  it('matches the whole name: * any characters, ? one', () => {
    const cases: [pattern: string, matches: string[], not: string[]][] = [
      ['agent-*', ['agent-', 'agent-1', 'agent-1-2'], ['agent', 'my-agent-1', 'Agent-1']],
      ['a?c', ['abc', 'a*c', 'a😀c'], ['ac', 'abbc']],
      ['*', ['', 'a'], []],
      ['a*b*c', ['abc', 'a-b-b-c', 'abcbc'], ['acb', 'ab']],
      ['[a]', ['[a]'], ['a']],
      ['a.b', ['a.b'], ['axb']],
    ];
    for (const [pattern, matches, not] of cases) {
      for (const text of matches) assert.ok(matchesGlob(pattern, text), `${pattern} ${text}`);
      for (const text of not) assert.ok(!matchesGlob(pattern, text), `${pattern} ${text}`);
    }
    assert.deepEqual(['a*', 'a?', 'a.b'].map(isGlob), [true, true, false]);
  });

  it('matches as the equivalent regular expression does', () => {
    const word = (chars: string) => fc.string({ unit: fc.constantFrom(...chars), maxLength: 8 });
    fc.assert(
      fc.property(word('ab*?'), word('ab'), (pattern, text) => {
        const expected = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`).test(text);
        assert.equal(matchesGlob(pattern, text), expected);
      }),
    );
  });

  it('takes no exponential time', () => {
    assert.equal(matchesGlob(`${'a*'.repeat(100)}b`, 'a'.repeat(1000)), false);
  });
});
