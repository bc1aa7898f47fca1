import assert from 'node:assert/strict';
import { LineWatch } from '../../../../src/vmm/console/line-watch.js';

const bytes = (text: string) => Buffer.from(text, 'utf8');

describe('LineWatch', () => {
  it('finds the end of the first line that matches', () => {
    const watch = new LineWatch(/^SUM/);
    assert.equal(watch.push(bytes('TICK 1\r\nSUM ab\r\nTICK 2\r\n')), 'TICK 1\r\nSUM ab\r\n'.length);
  });

  it('waits for the end of a line that arrives in pieces', () => {
    const watch = new LineWatch(/^SUM [0-9a-f]+$/);
    assert.equal(watch.push(bytes('TICK\nSU')), null);
    assert.equal(watch.push(bytes('M ab')), null);
    assert.equal(watch.push(bytes('cd\r')), null);
    assert.equal(watch.push(bytes('\nmore')), 1);
  });

  it('does not match a pattern for the start of a line within a line', () => {
    const watch = new LineWatch(/^SUM/);
    assert.equal(watch.push(bytes('a ')), null);
    assert.equal(watch.push(bytes('SUM\n')), null);
  });

  it('matches a character that arrives in pieces', () => {
    const watch = new LineWatch(/^fertig ✓$/u);
    const line = bytes('fertig ✓\n');
    assert.equal(watch.push(line.subarray(0, 8)), null);
    assert.equal(watch.push(line.subarray(8)), line.length - 8);
  });

  it('ignores the rest of a line that began before', () => {
    const watch = new LineWatch(/SUM/, true);
    assert.equal(watch.push(bytes('SUM')), null);
    assert.equal(watch.matchesUnfinished(), false);
    assert.equal(watch.push(bytes(' 1\nSUM 2\n')), ' 1\nSUM 2\n'.length);
  });

  it('matches an unfinished line only on request', () => {
    const watch = new LineWatch(/# $/);
    assert.equal(watch.push(bytes('boot\n~ # ')), null);
    assert.equal(watch.matchesUnfinished(), true);
    assert.equal(watch.push(bytes('ls')), null);
    assert.equal(watch.matchesUnfinished(), false);
    assert.equal(new LineWatch(/^/).matchesUnfinished(), false, 'an empty line has not begun');
  });

  it('keeps a bounded part of an endless line', () => {
    const watch = new LineWatch(/^x*END$/);
    for (let i = 0; i < 64; i++) assert.equal(watch.push(Buffer.alloc(65_536, 'x')), null);
    assert.equal(watch.push(bytes('END\n')), 4);
  });

  it('matches a line with or without its escape sequences, and tells which line matched', () => {
    const prompt = new LineWatch(/^root:~# $/);
    assert.equal(prompt.push(Buffer.from('\x1b[1;32mroot\x1b[0m:~# \x1b[6n')), null);
    assert.equal(prompt.matchesUnfinished(), true);
    assert.equal(prompt.matched, 'root:~# ');
    const raw = new LineWatch(/\[6n$/);
    assert.equal(raw.push(Buffer.from('a\n\x1b[6n\r\nb')), 8);
    assert.equal(raw.matched, '');
    assert.equal(new LineWatch(/x/).matched, null);
  });
});
