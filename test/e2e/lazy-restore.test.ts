/** `restore --lazy`, from stores and exports, beside verbs that change the store. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { lazyFillErrno } from '../../src/native/memory-fill.js';
import { requireKvm } from '../kvm/kvm.js';
import { dropScratch, mountReadOnly } from '../store/scratch.js';
import { World } from './cli.js';
import { gone } from './processes.js';

describe('livesnap restore --lazy', function () {
  this.timeout(180_000);
  let world: World;

  before(function () {
    requireKvm(this);
    if (lazyFillErrno() !== null) this.skip();
  });
  beforeEach(() => {
    world = new World();
  });
  afterEach(async function () {
    dropScratch(this);
    await world.end();
  });

  /** A snapshot of a stopped machine, and a sum over its RAM. */
  async function saved(): Promise<{ id: string; sum: string }> {
    await world.start('first', ['--memory', '256M']);
    await world.ask('first', 'fill 9 60', /^OK/);
    const sum = await world.ask('first', 'sum 60', /^SUM/);
    const { id } = await world.json<{ id: string }>('save', 'first', '--then', 'stop');
    return { id, sum };
  }

  const restore = (ref: string, name: string, ...more: string[]) =>
    world.json<{ pid: number; notices?: string[] }>(
      ...['restore', ref, '--lazy', '--detach', '--name', name],
      ...more,
    );

  it('runs beside rm, gc and repair, and its save can be restored', async () => {
    const { id, sum } = await saved();
    await restore(id, 'a');
    await world.json('rm', id);
    await world.json('gc');
    await world.json('repair');
    assert.equal(await world.ask('a', 'sum 60', /^SUM/), sum);
    const again = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
    await restore(again.id, 'b');
    assert.equal(await world.ask('b', 'sum 60', /^SUM/), sum);
    await world.json('check', '--read-data');
  });

  it('runs from an exported directory, and is saved in full to another store at once', async () => {
    const { id, sum } = await saved();
    const exported = join(world.dir, 'exported');
    await world.json('export', id, exported);
    await restore(exported, 'a');
    const other = ['--store', join(world.dir, 'other')];
    const { id: copy } = await world.json<{ id: string }>('save', 'a', '--then', 'stop', ...other);
    await world.json('restore', copy, '--detach', '--name', 'b', ...other);
    assert.equal(await world.ask('b', 'sum 60', /^SUM/), sum);
  });

  it('runs from a store on a read-only file system', async function () {
    const { id, sum } = await saved();
    mountReadOnly(this, world.store);
    await restore(id, 'a', '--overlay-dir', world.dir);
    assert.equal(await world.ask('a', 'sum 60', /^SUM/), sum);
    await world.json('stop', 'a', '--force');
  });

  it('leaves no process and no memory when it is killed', async () => {
    const { id } = await saved();
    for (let round = 0; round < 5; round++) {
      const { pid } = await restore(id, `k${round}`);
      const asking = round % 2 === 1 ? world.ask(`k${round}`, 'sum 60', /^SUM/).catch(() => {}) : null;
      process.kill(pid, 'SIGKILL');
      await gone(pid);
      await asking;
    }
  });
});
