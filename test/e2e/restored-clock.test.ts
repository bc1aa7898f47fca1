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
    await world.json(
      'start',
      '--kernel',
      probe('probe.bzImage'),
      '--memory',
      '64M',
      '--name',
      'a',
      '--detach',
    );
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

  /** How far the guest's clock fell behind the host's between the first save and one after a restore. */
  async function lagNs(tag: string, ...clock: string[]): Promise<bigint> {
    await world.json('restore', 'first', '--name', tag, '--detach', ...clock);
    await world.json('save', tag, '--tag', tag, '--then', 'stop');
    const [before, after] = [await clocksOf('first'), await clocksOf(tag)];
    return after.realtimeNs - before.realtimeNs - (after.clockNs - before.clockNs);
  }

  it('counts the time since the save by default, and leaves it out with "saved"', async () => {
    const byDefault = await lagNs('default');
    const host = await lagNs('host', '--clock', 'host');
    const saved = await lagNs('saved', '--clock', 'saved');
    // With "saved" the lag is the whole time since the first save, in which two other machines ran and ended.
    const most = saved / 4n;
    assert(byDefault < most && host < most, `lags in ns: ${byDefault}, ${host}, ${saved}`);
  });
});
