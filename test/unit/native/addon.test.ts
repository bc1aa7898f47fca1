import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

describe('a Worker that is terminated while the addon throws', () => {
  it('ends alone, and the process goes on', () => {
    const child = fileURLToPath(new URL('./addon-child.js', import.meta.url));
    const { status, signal, stderr } = spawnSync(process.execPath, [child], { encoding: 'utf8' });
    assert.deepEqual([status, signal], [0, null], stderr);
  });
});
