import assert from 'node:assert/strict';
import {
  formatBytes,
  formatMs,
  formatPairs,
  formatTable,
  Output,
  printable,
} from '../../../src/cli/output.js';

describe('output', () => {
  it('writes sizes with three digits at most', () => {
    const cases: [number, string][] = [
      [0, '0 B'],
      [999, '999 B'],
      [1000, '1.0 KiB'],
      [1023, '1.0 KiB'],
      [1536, '1.5 KiB'],
      [2 ** 28, '256 MiB'],
      [5 * 2 ** 30, '5 GiB'],
      [123_456_789, '118 MiB'],
      [2 ** 53, '8 PiB'],
    ];
    for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
  });

  it('writes times in the unit that fits', () => {
    assert.deepEqual([0.41, 12.3, 1234, 61_000].map(formatMs), ['0.4 ms', '12 ms', '1.2 s', '61 s']);
  });

  it('lines columns up', () => {
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

  it('lets nothing from outside drive the terminal', () => {
    assert.equal(printable('a\x1b[2Jb\n\x9b'), 'a\\x1b[2Jb\\x0a\\x9b');
    assert.equal(printable('Größe ✓ 🙂'), 'Größe ✓ 🙂');
    assert.equal(printable('a\u202eb\u200b\ufeff\u2028\u00ad'), 'a\\u202eb\\u200b\\ufeff\\u2028\\xad');
    assert.equal(printable('\u{e0041}'), '\\u{e0041}');
    assert.equal(printable('a\ud83db'), 'a\\ud83db', 'a lone surrogate');
  });

  it('lets nothing drive the terminal in whatever is printed, with words, without and as JSON', () => {
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
    for (const [what, print] of Object.entries(prints)) assert.equal(written(print), shown, what);
    const json = written(() => new Output(true, false).result({ evil }, () => ''));
    assert.doesNotMatch(json.trimEnd(), /[\p{Cc}\p{Cf}\p{Zl}\p{Cs}]/u);
    assert.deepEqual(JSON.parse(json), { evil });
  });
});
