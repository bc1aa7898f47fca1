import assert from 'node:assert/strict';
import { rendered, styled } from '../../../src/cli/styled-text.js';
import { type Column, formatPairs, formatTable } from '../../../src/cli/table.js';

const plainTable = <T>(rows: readonly T[], columns: readonly Column<T>[], width?: number): string =>
  String(formatTable(rows, columns, width));

describe('a table', () => {
  it('aligns the columns of tables', () => {
    const rows = [
      { name: 'a', size: 1 },
      { name: 'longer', size: 100 },
    ];
    assert.equal(
      plainTable(rows, [
        { title: 'NAME', cell: (row) => row.name },
        { title: 'SIZE', cell: (row) => String(row.size), right: true },
        { title: 'TAG', cell: () => null },
      ]),
      ['NAME    SIZE  TAG', 'a          1  -', 'longer   100  -'].join('\n'),
    );
    assert.equal(
      String(
        formatPairs([
          ['id', 'x'],
          ['parent', null],
        ]),
      ),
      'id      x\nparent  -',
    );
  });

  it('cuts the columns of tables for a narrow terminal, then leaves out the least useful ones', () => {
    const rows = [
      { id: '0123456789ab', tags: 'alpha, beta, gamma', name: 'a-long-name', size: '1 MiB' },
      { id: 'ba9876543210', tags: '\u{1f600}'.repeat(20), name: 'b', size: '2 MiB' },
    ];
    const table = (width: number): string[] =>
      plainTable(
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

  it('has bold titles, and cells with the style of their column', () => {
    const table = formatTable(
      ['a', 'long'],
      [
        { title: 'NAME', cell: (name) => name },
        { title: 'N', cell: () => '10', right: true, style: (name) => (name === 'a' ? 'bad' : null) },
      ],
    );
    assert.deepEqual(rendered(table, true).split('\n'), [
      '\x1b[1mNAME\x1b[22m   \x1b[1mN\x1b[22m',
      'a     \x1b[31m10\x1b[39m',
      'long  10',
    ]);
    assert.equal(rendered(table, false), String(table));
  });

  it('keeps one line for each row and pair, whatever a cell holds', () => {
    const evil = 'a\nb\x1b[2J';
    assert.equal(plainTable([evil], [{ title: 'NAME', cell: (name) => name }]), 'NAME\na\\x0ab\\x1b[2J');
    assert.equal(String(formatPairs([['Name', evil]])), 'Name  a\\x0ab\\x1b[2J');
    assert.equal(
      rendered(formatPairs([['State', styled('good', 'running')]]), true),
      'State  \x1b[32mrunning\x1b[39m',
    );
  });
});
