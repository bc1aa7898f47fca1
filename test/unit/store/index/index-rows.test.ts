import assert from 'node:assert/strict';
import { invalidRow, type Table } from '../../../../src/store/index/index-rows.js';

const problem = (table: Table, row: object): string | undefined => invalidRow(table, row)?.message;

describe('the check of an index row', () => {
  it('accepts a valid row, whole or with some of its columns', () => {
    const pack = { number: 2 ** 32 - 1, generation: 0, chunks: 32_768, sizeBytes: 100, readRun: 0 };
    assert.equal(problem('packs', pack), undefined);
    assert.equal(problem('packs', { generation: 999_999_999 }), undefined);
    assert.equal(problem('snapshots', { id: 'ab'.repeat(16), tag: null, vm: null, parent: null }), undefined);
  });

  it('names the table, the column and the value', () => {
    assert.equal(
      problem('packs', { number: 1, chunks: 32_769 }),
      'store.db: the table packs has an invalid row: chunks 32769 is not an integer from 1 to 32768',
    );
    assert.equal(
      problem('snapshots', { id: '../x' }),
      'store.db: the table snapshots has an invalid row: id "../x" is not a snapshot ID',
    );
  });

  it('names the table tags if a query over two tables returns an invalid tag', () => {
    assert.equal(
      problem('snapshots', { id: 'ab'.repeat(16), tag: '../x' }),
      'store.db: the table tags has an invalid row: label "../x" is not a tag',
    );
    assert.equal(
      problem('tags', { label: 'a', snapshot: 'ab'.repeat(16), snapshotExists: 0 }),
      'store.db: the table tags has an invalid row: the snapshot of the tag "a" does not exist',
    );
  });

  it('shortens a long value and escapes control characters', () => {
    const message = problem('snapshots', { id: `\u001b]0;${'x'.repeat(1000)}` })!;
    assert.match(message, /: id "\\u001b\]0;x+… is not a snapshot ID$/);
    assert.ok(message.length < 200);
  });
});
