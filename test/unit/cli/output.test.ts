import assert from 'node:assert/strict';
import {
  formatPairs,
  formatTable,
  Output,
  paceOf,
  printable,
  taggedSentence,
} from '../../../src/cli/output.js';

describe('the output', () => {
  it('tells the rate after a second, and the time left where the total is known', () => {
    const MIB = 1 << 20;
    assert.equal(paceOf(80 * MIB, 1040 * MIB, 999), '');
    assert.equal(paceOf(80 * MIB, 1040 * MIB, 1000), ', 80 MiB/s, 12 s left');
    assert.equal(paceOf(80 * MIB, null, 1000), ', 80 MiB/s');
    assert.equal(paceOf(0, 100, 1000), ', 0 B/s');
    assert.equal(paceOf(100, 90, 1000), ', 100 B/s, 0.0 ms left');
  });

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

  it('cuts the columns of tables for a narrow terminal, then leaves out the least useful ones', () => {
    const rows = [
      { id: '0123456789ab', tags: 'alpha, beta, gamma', name: 'a-long-name', size: '1 MiB' },
      { id: 'ba9876543210', tags: '\u{1f600}'.repeat(20), name: 'b', size: '2 MiB' },
    ];
    const table = (width: number): string[] =>
      formatTable(
        rows,
        [
          { title: 'ID', cell: ({ id }) => id },
          { title: 'TAGS', cell: ({ tags }) => tags, cutTo: 8, spare: 2 },
          { title: 'NAME', cell: ({ name }) => name, cutTo: 4, spare: 3 },
          { title: 'SIZE', cell: ({ size }) => size, right: true, spare: 1 },
        ],
        width,
      ).split('\n');
    const titles = (width: number): string[] => table(width)[0]!.split(/ +/);
    const whole = table(Infinity);
    assert.equal(whole[1], '0123456789ab  alpha, beta, gamma    a-long-name  1 MiB');
    assert.deepEqual(table(54), whole);
    assert.equal(table(53)[1], '0123456789ab  alpha, beta, gamma   a-long-name  1 MiB');
    assert.equal(table(42)[1], '0123456789ab  alpha, b…  a-long-na…  1 MiB');
    assert.equal(table(42)[2], `ba9876543210  ${'\u{1f600}'.repeat(8)}…  b           2 MiB`);
    assert.equal(table(35)[1], '0123456789ab  alpha, …  a-l…  1 MiB');
    for (let width = 1; width < 60; width++)
      for (const line of table(width))
        assert.ok([...line].length <= Math.max(width, 12), `${width}: ${line}`);
    assert.deepEqual(titles(34), ['ID', 'TAGS', 'NAME']);
    assert.deepEqual(titles(27), ['ID', 'NAME']);
    assert.deepEqual(table(17), ['ID', '0123456789ab', 'ba9876543210']);
    assert.deepEqual(table(3), table(17));
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
