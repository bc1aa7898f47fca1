/** `livesnap demo` with a kernel of the host, which only hosts with VMX or SVM can run. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync } from 'node:fs';
import { release } from 'node:os';
import { World } from '../../e2e/cli.js';
import { stockGuest } from './svm.js';

describe('livesnap demo on SVM', () => {
  let world: World;
  before(() => {
    mkdirSync('/boot', { recursive: true });
    copyFileSync(stockGuest('vmlinuz'), `/boot/vmlinuz-${release()}`);
  });
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('boots the kernel of the host, saves it, forks five that count on, and leaves nothing behind', async () => {
    const { status, stdout, stderr } = await world.run(['demo', '--json']);
    assert.equal(status, 0, stderr);
    process.stderr.write(stderr);
    const { guest, kernel, clones, counts } = JSON.parse(stdout) as Record<string, unknown> & {
      counts: readonly unknown[];
    };
    assert.deepEqual([guest, kernel, clones], ['linux', `/boot/vmlinuz-${release()}`, 5]);
    assert.equal(counts.length, 5);
    assert.deepEqual(await world.json('ps'), []);
  });
});
