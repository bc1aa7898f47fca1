/** `restore --clock`: the command line's choice reaches the guest's clocks. Details: test/kvm/guest-time.test.ts. */
import assert from 'node:assert/strict';
import { Store } from '../../src/store/store.js';
import { decodeMachineState } from '../../src/vmm/machine-state.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { World } from './cli.js';

describe('livesnap restore --clock', () => {
  let world: World;
  before(async function () {
    requireKvm(this);
    world = new World();
    await world.start('a', [], probe('probe.bzImage'));
    await world.json('save', 'a', '--tag', 'first', '--then', 'stop');
  });
  after(() => world?.end());

  /** The guest's clock and the host's wall clock at a save. */
  async function clocksOf(ref: string): Promise<{ clockNs: bigint; realtimeNs: bigint }> {
    const store = Store.open(world.store, { write: false });
    const snapshot = await store.openSnapshot(ref);
    const { clockNs, realtimeNs } = decodeMachineState(snapshot.metadata.state).vm;
    snapshot.close();
    store.close();
    return { clockNs, realtimeNs: realtimeNs! };
  }

  /** Of the time on the host between the first save and one after a restore: how many percent the guest's clock counted. */
  async function countedPercent(tag: string, ...clock: string[]): Promise<number> {
    await world.json('restore', 'first', '--name', tag, '--detach', ...clock);
    await world.json('save', tag, '--tag', tag, '--then', 'stop');
    const [before, after] = [await clocksOf('first'), await clocksOf(tag)];
    return Number(((after.clockNs - before.clockNs) * 100n) / (after.realtimeNs - before.realtimeNs));
  }

  it('counts the time since the save by default, and leaves it out with "saved"', async () => {
    const byDefault = await countedPercent('default');
    const host = await countedPercent('host', '--clock', 'host');
    // Two other machines ran and ended since the save, so the time that this one runs is a small part.
    const saved = await countedPercent('saved', '--clock', 'saved');
    assert(byDefault > 90 && host > 90 && saved < 70, `${byDefault}, ${host}, ${saved} percent`);
  });
});
