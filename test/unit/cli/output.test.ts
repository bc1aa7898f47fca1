import assert from 'node:assert/strict';
import { formatPairs, formatTable, Output, printable, taggedSentence } from '../../../src/cli/output.js';

describe('the output', () => {
  it('aligns the columns of tables', () => {
    const rows = [
      { name: 'a', size: 1 },
      { name: 'longer', size: 100 },
    ];
    assert.equal(
      formatTable(rows, [
        { title: 'NAME', cell: (row) => row.name },
        { title: 'SIZE', cell: (row) => String(row.size), right: true },
        { title: 'TAG', cell: () => null },
      ]),
      ['NAME    SIZE  TAG', 'a          1  -', 'longer   100  -'].join('\n'),
    );
    assert.equal(
      formatPairs([
        ['id', 'x'],
        ['parent', null],
      ]),
      'id      x\nparent  -',
    );
  });

  it('names the snapshot that a tag is moved from', () => {
    const [id, other] = ['a'.repeat(32), 'b'.repeat(32)];
    assert.equal(taggedSentence(id, 'first', null), 'Tagged aaaaaaaaaaaa as first');
    assert.equal(
      taggedSentence(id, 'first', other),
      'Tagged aaaaaaaaaaaa as first (moved from bbbbbbbbbbbb)',
    );
  });

  it('escapes control and format characters in untrusted text', () => {
    assert.equal(printable('a\x1b[2Jb\n\x9b'), 'a\\x1b[2Jb\\x0a\\x9b');
    assert.equal(printable('Größe ✓ 🙂'), 'Größe ✓ 🙂');
    assert.equal(printable('a\u202eb\u200b\ufeff\u2028\u00ad'), 'a\\u202eb\\u200b\\ufeff\\u2028\\xad');
    assert.equal(printable('\u{e0041}'), '\\u{e0041}');
    assert.equal(printable('a\ud83db'), 'a\\ud83db', 'a lone surrogate');
  });

  it('escapes them in results, in messages, with --quiet and with --json', () => {
    const evil = 'a\x1b]0;x\x07\x9b2J\x7f\rb\u202ec\u2028\u{e0041}\udc00';
    const written = (print: () => void): string => {
      const { stdout, stderr } = process;
      const [toOut, toErr] = [stdout.write, stderr.write];
      let text = '';
      const take = (chunk: unknown): boolean => {
        text += chunk;
        return true;
      };
      stdout.write = take as typeof stdout.write;
      stderr.write = take as typeof stderr.write;
      try {
        print();
      } finally {
        stdout.write = toOut;
        stderr.write = toErr;
      }
      return text;
    };
    const prints: Record<string, () => void> = {
      human: () => new Output(false, false).result({}, () => `${evil}\nthen`),
      bare: () =>
        new Output(false, true).result(
          {},
          () => '',
          () => `${evil}\nthen`,
        ),
      remark: () => new Output(false, false).remark(`${evil}\nthen`),
    };
    const shown = `${printable(evil)}\nthen\n`;
    for (const [kind, print] of Object.entries(prints)) assert.equal(written(print), shown, kind);
    const json = written(() => new Output(true, false).result({ evil }, () => ''));
    assert.doesNotMatch(json.trimEnd(), /[\p{Cc}\p{Cf}\p{Zl}\p{Cs}]/u);
    assert.deepEqual(JSON.parse(json), { evil });
  });
});
