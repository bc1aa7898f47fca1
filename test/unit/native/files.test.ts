import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemError } from '../../../src/errors.js';
import { syncFiles } from '../../../src/native/files.js';

describe('syncFiles', () => {
  let dir: string;
  let fds: number[];

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-files-'));
    fds = ['a', 'b', 'c'].map((name) => openSync(join(dir, name), 'w'));
    for (const fd of fds) writeSync(fd, 'bytes');
  });

  afterEach(() => {
    for (const fd of fds) closeSync(fd);
    rmSync(dir, { recursive: true });
  });

  it('takes no file, one, and several', () => {
    syncFiles([]);
    syncFiles(fds.slice(0, 1));
    syncFiles(fds);
  });

  it('throws the error of a file that cannot be synced, wherever it stands', () => {
    const pipe = openSync('/dev/null', 'r'); // fsync(2): EINVAL
    try {
      for (const order of [[pipe, ...fds], [...fds, pipe], [pipe]])
        assert.throws(
          () => syncFiles(order),
          (error) => (error as Error).message.includes('fsync'),
        );
      assert.throws(
        () => syncFiles([...fds, pipe]),
        (error) => error instanceof SystemError && error.errnoName === 'EINVAL',
      );
    } finally {
      closeSync(pipe);
    }
  });

  it('refuses more files than it has threads for', () => {
    assert.throws(() => syncFiles(Array.from({ length: 9 }, () => fds[0]!)), RangeError);
  });
});
