/** The probe guest: saved, stopped, and restored in a new process. */
import assert from 'node:assert/strict';
import { World } from '../../e2e/cli.js';
import { probe } from '../../kvm/kvm.js';
import { hear } from './svm.js';

const TICK = /^TICK \d+ nonce=[0-9a-f]{16}$/;
const SUM_MIB = '20';

describe('a machine on SVM', () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  /** The state of the machine, as the guest reports it. */
  async function look(machine: string) {
    const sum = await world.ask(machine, `sum ${SUM_MIB}`, /^SUM [0-9a-f]{16}$/);
    const counters = (await world.ask(machine, 'cpus', /^CPUS [0-9,]+$/)).slice('CPUS '.length);
    const [, count, nonce] = /^TICK (\d+) nonce=(.+)$/.exec(await hear(world, machine, TICK))!;
    return { sum, counters: counters.split(',').map(Number), count: Number(count), nonce };
  }

  for (const cpus of [1, 2, 4])
    it(`continues with ${cpus} vCPUs in a new process`, async () => {
      await world.json(
        ...['start', '--kernel', probe('probe.bzImage'), '--memory', '64M', '--cpus', String(cpus)],
        ...['--detach', '--name', 'before'],
      );
      await world.ask('before', 'text 7 16', /^OK text/);
      const before = await look('before');
      const saved = await world.json<{ id: string }>('save', 'before', '--then', 'stop');
      await world.json('restore', saved.id, '--detach', '--name', 'after');
      const after = await look('after');
      assert.equal(after.nonce, before.nonce, 'the nonce is the same');
      assert.equal(after.sum, before.sum, 'the sum of memory is the same');
      assert.ok(after.count > before.count, 'ticks continue');
      assert.equal(after.counters.length, cpus);
      for (const [i, counter] of after.counters.entries())
        assert.ok(counter > before.counters[i]!, `vCPU ${i} continues its count`);
    });
});
