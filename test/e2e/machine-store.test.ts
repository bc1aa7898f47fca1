/** The store that a machine saves to. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { type World, worldOfEachTest } from './cli.js';

describe('the store of a machine', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const start = (name: string, ...more: string[]) =>
    world.json<{ pid: number }>(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', name],
      ...more,
    );
  const ids = async (store: string) =>
    (await world.json<{ id: string }[]>('ls', '--store', store)).map(({ id }) => id);

  it('is the one it was started with or restored from, unless the save names another', async () => {
    delete world.env.LIVESNAP_STORE;
    world.env.XDG_DATA_HOME = join(world.dir, 'data');
    const mine = join(world.dir, 'mine');
    await start('a', '--store', mine);
    const first = await world.json<{ id: string }>('save', 'a');
    assert.deepEqual(await ids(mine), [first.id]);
    await world.json('stop', 'a');
    await world.json('restore', first.id, '--store', mine, '--detach', '--name', 'b');
    const second = await world.json<{ id: string; parent: string }>('save', 'b');
    assert.equal(second.parent, first.id, 'only what changed is saved');
    const other = join(world.dir, 'other');
    const third = await world.json<{ id: string; parent: string | null }>('save', 'b', '--store', other);
    assert.equal(third.parent, null);
    assert.deepEqual(await ids(other), [third.id]);
    world.env.LIVESNAP_STORE = join(world.dir, 'environment');
    const fourth = await world.json<{ id: string }>('save', 'b');
    assert.deepEqual(await ids(world.env.LIVESNAP_STORE), [fourth.id]);
    assert.deepEqual((await ids(mine)).sort(), [first.id, second.id].sort());
  });

  it('is never the exported directory that it was restored from', async () => {
    delete world.env.LIVESNAP_STORE;
    world.env.XDG_DATA_HOME = join(world.dir, 'data');
    await start('a');
    const { id } = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
    const stick = join(world.dir, 'stick');
    await world.json('export', id, stick);
    await world.json('rm', id);
    await world.json('restore', stick, '--detach', '--name', 'b');
    const saved = await world.json<{ id: string }>('save', 'b');
    assert.deepEqual(await ids(stick), [id]);
    assert.deepEqual(await ids(join(world.env.XDG_DATA_HOME, 'livesnap')), [saved.id]);
  });
});
