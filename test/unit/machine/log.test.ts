import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Log } from '../../../src/machine/log.js';
import { dropScratch, mountSmall, scratchDir } from '../../store/scratch.js';

const ENTRY = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /;

describe('the log of a machine’s process', () => {
  let dir: string;
  let fd: number;
  beforeEach(function () {
    dir = scratchDir(this);
  });
  afterEach(function () {
    closeSync(fd);
    dropScratch(this);
  });
  const open = (path = join(dir, 'log')): Log => {
    fd = openSync(path, 'a');
    return new Log(fd);
  };
  const lines = (): string[] => readFileSync(join(dir, 'log'), 'utf8').split('\n');

  it('has one line per entry, with the time', () => {
    const log = open();
    log.write('one');
    log.write('two');
    const [first, second, end] = lines();
    assert.match(first!, ENTRY);
    assert.ok(first!.endsWith('Z one') && second!.endsWith('Z two') && end === '');
  });

  it('has the stack, code and cause of an error, and accepts any thrown value', () => {
    const log = open();
    log.writeError(Object.assign(new TypeError('wrong', { cause: new Error('inner') }), { code: 'EX' }));
    log.writeError('no error');
    log.writeError(undefined);
    assert.match(
      lines().join('\n'),
      /TypeError: wrong\n +at .*code: 'EX'.*Error: inner.*'no error'.*undefined/s,
    );
  });

  it('limits the size of an entry', () => {
    open().write('x'.repeat(1 << 20));
    assert.ok(lines()[0]!.length < 20_000);
  });

  it('never fails, whatever is wrong with its file', () => {
    const log = open('/dev/full');
    log.write('one');
    log.writeError(new Error('two'));
    new Log(-1).write('three');
    new Log(12_345).write('four');
  });

  it('counts entries dropped on a full disk, and writes the count when there is room again', function () {
    mountSmall(this, dir, 64 << 10);
    const log = open();
    log.write('before');
    const filler = join(dir, 'filler');
    assert.throws(() => writeFileSync(filler, Buffer.alloc(1 << 20)), { code: 'ENOSPC' });
    for (let i = 0; i < 30; i++) log.write(`${i} ${'y'.repeat(1000)}`);
    rmSync(filler);
    log.write('after');
    const found = lines().slice(0, -1);
    const whole = found.filter((line) => /Z \d+ y{1000}$/.test(line)).length;
    assert.ok(whole < 30);
    assert.match(found.at(-1)!, / after$/);
    assert.match(found.at(-2)!, new RegExp(`Z ${30 - whole} earlier entries dropped: the disk was full$`));
    for (const line of found) assert.match(line, ENTRY, 'an entry that was cut is on a line of its own');
  });
});
