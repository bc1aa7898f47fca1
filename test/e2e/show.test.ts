/** `livesnap show` of machines; store.test.ts has that of snapshots. */
import assert from 'node:assert/strict';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { gone } from './processes.js';

describe('livesnap show', function () {
  this.timeout(limit(60_000));
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });
  const start = (name: string): Promise<{ pid: number; id: string }> =>
    world.json(
      ...['start', '--kernel', probe('probe.bzImage'), '--memory', '32M', '--name', name],
      ...['--label', 'course=os', '--detach'],
    );

  it('describes a machine that runs, by its name and by its ID', async () => {
    const { id, pid } = await start('web');
    const shown = await world.json<Record<string, unknown>>('show', id.slice(0, 8));
    assert.deepEqual([shown.name, shown.pid, shown.state, shown.problem], ['web', pid, 'running', null]);
    assert.ok((shown.touchedBytes as number) > 0 && (shown.touchedBytes as number) < 32 << 20);
    assert.ok((shown.cpuSeconds as number) > 0);
    const { stdout } = await world.run(['inspect', 'web']);
    assert.match(stdout, /^State +running$/m);
    assert.match(stdout, /^Labels +course=os$/m);
    assert.match(stdout, /^Touched +[\d.]+ [KM]iB of the memory$/m);
    assert.match(stdout, /^Changed +-$/m);
    await world.json('save', 'web');
    await world.ask('web', 'fill 5 4', /^OK/);
    const saved = await world.json<{ dirtyBytes: number }>('show', 'web');
    assert(saved.dirtyBytes >= 0 && saved.dirtyBytes < 8 << 20, `${saved.dirtyBytes}`);
    assert.match(
      (await world.run(['show', 'web'])).stdout,
      /^Changed +[\d.]+ [KM]?i?B since the last save$/m,
    );
  });

  it('describes a machine whose process has died', async () => {
    const { pid } = await start('web');
    process.kill(pid, 'SIGKILL');
    await gone(pid);
    const shown = await world.json<Record<string, unknown>>('show', 'web');
    assert.deepEqual([shown.state, shown.memoryBytes], ['gone', 32 << 20]);
    assert.match((await world.run(['show', 'web'])).stdout, /^State +gone$/m);
  });

  it('asks which one is meant when a machine and a snapshot have the name', async () => {
    await start('web');
    const saved = await world.json<{ id: string }>('save', 'web', '--tag', 'web');
    await world.fails(2, 'AMBIGUOUS', ['show', 'web']);
    assert.equal((await world.json<{ id: string }>('show', 'web', '--type', 'snapshot')).id, saved.id);
    assert.equal((await world.json<{ name: string }>('show', 'web', '--type', 'machine')).name, 'web');
    await world.fails(3, 'NO_SUCH_MACHINE', ['show', 'absent', '--type', 'machine']);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['show', 'absent']);
  });
});
