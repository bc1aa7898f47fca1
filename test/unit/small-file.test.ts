import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readSmallFile } from '../../src/small-file.js';

describe('a small file', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-small-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const read = (path: string): string =>
    readSmallFile(path, 4, (problem) => new Error(`refused: ${problem}`));

  it('is read up to its limit', () => {
    const file = join(dir, 'file');
    writeFileSync(file, 'text');
    assert.equal(read(file), 'text');
    writeFileSync(file, 'texts');
    assert.throws(() => read(file), /refused: it is larger than 4 bytes/);
  });

  it('is a regular file: directories, devices and FIFOs without a writer are refused', () => {
    const fifo = join(dir, 'fifo');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    for (const path of [dir, '/dev/zero', fifo])
      assert.throws(() => read(path), /refused: it is not a regular file/);
  });

  it('exists', () => {
    assert.throws(() => read(join(dir, 'none')), { code: 'NO_SUCH_FILE' });
  });
});
