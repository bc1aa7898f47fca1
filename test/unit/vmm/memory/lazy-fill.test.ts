import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createMemory } from '../../../../src/native/memory.js';
import { lazyFillErrno } from '../../../../src/native/memory-fill.js';
import type { OpenSnapshot } from '../../../../src/page-stream.js';
import { LazyFill, lazyObstacle } from '../../../../src/vmm/memory/lazy-fill.js';

const MODULE = fileURLToPath(new URL('../../../../src/vmm/memory/lazy-fill.js', import.meta.url));
const NOBODY = 65534;

describe('lazyObstacle', () => {
  it('is null where page faults of a guest may be served', function () {
    if (lazyFillErrno() !== null) this.skip();
    assert.equal(lazyObstacle(), null);
  });

  it('names the sysctl and the udev rule to a user who may not serve them', function () {
    if (process.getuid?.() !== 0) this.skip();
    const program = `const { lazyObstacle } = await import(${JSON.stringify(MODULE)}); console.log(lazyObstacle())`;
    const ran = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      ...{ uid: NOBODY, gid: NOBODY, encoding: 'utf8' },
    });
    if (ran.stdout === 'null\n') this.skip(); // this host allows it to everybody
    assert.match(
      ran.stdout,
      /userfaultfd: EPERM\).*sysctl vm\.unprivileged_userfaultfd=1.*udev rule/,
      ran.stderr,
    );
  });
});

describe('LazyFill', () => {
  it('closes the regions that it has opened when one cannot be opened', async () => {
    const closed: string[] = [];
    const snapshot = {
      summary: { id: 'x' },
      openRegion: async (name: string) => {
        if (name === 'b') throw new Error('damaged');
        return { sizeBytes: 4096, reader: 0, close: () => closed.push(name) };
      },
    } as unknown as OpenSnapshot;
    const regions = ['a', 'b'].map((name) => ({ name, sizeBytes: 4096 }));
    const slots = regions.map(({ sizeBytes }, i) => ({
      ...{ gpa: i * sizeBytes, sizeBytes, memory: createMemory(sizeBytes) },
      written: new SharedArrayBuffer(8),
    }));
    await assert.rejects(LazyFill.start(snapshot, regions, slots), /damaged/);
    assert.deepEqual(closed, ['a']);
  });
});
