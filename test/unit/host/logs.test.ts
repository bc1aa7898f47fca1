import assert from 'node:assert/strict';
import { lastLines } from '../../../src/host/logs.js';

describe('the last lines of some output', () => {
  const last = (output: string, lines: number | null): string =>
    Buffer.from(lastLines(Buffer.from(output), lines)).toString();

  it('are counted from the end, with or without a line end there', () => {
    assert.equal(last('a\nb\nc\n', 2), 'b\nc\n');
    assert.equal(last('a\nb\nc', 2), 'b\nc');
    assert.equal(last('a\n\n\n', 2), '\n\n');
  });

  it('are all of it where there are no more, or where no number is given', () => {
    for (const lines of [3, 4, 1000, null]) assert.equal(last('a\nb\nc\n', lines), 'a\nb\nc\n');
    assert.equal(last('', 3), '');
    assert.equal(last('\n', 1), '\n');
  });

  it('are none of it for 0', () => {
    assert.equal(last('a\nb\n', 0), '');
    assert.equal(last('', 0), '');
  });
});
