/** The arguments of programs for developers. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';

describe('a program for developers', () => {
  for (const [program, file] of [
    ['bench', 'dist/bench/run.js'],
    ['crash', 'dist/test/crash/run.js'],
    ['fuzz:virtio', 'dist/test/fuzz/run-virtio.js'],
    ['cycles', 'scripts/cycles.mjs'],
  ] as const)
    it(`refuses an unknown option in one line: ${program}`, () => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [join(projectRoot, file), '--frob'], {
        encoding: 'utf8',
      });
      assert.deepEqual([status, stdout], [2, '']);
      assert.match(stderr, new RegExp(`^${program}: Unknown option '--frob'; the options are --.*\n$`));
    });
});
