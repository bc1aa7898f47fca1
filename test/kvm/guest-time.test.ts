/** The clocks of a restored guest. Its snapshot is made to look an hour old. */
import assert from 'node:assert/strict';
import type { OpenSnapshot } from '../../src/page-stream.js';
import type { RestoreClock } from '../../src/vmm/kvm/guest-time.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { Machine } from '../../src/vmm/machine.js';
import {
  decodeMachineState,
  encodeMachineState,
  type SavedMachineState,
} from '../../src/vmm/machine-state.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const SECOND = 1_000_000_000n;
const HOUR = 3600n * SECOND;
const SAVE = { vm: 'test', tags: [], then: 'pause' } as const;
const TSC = 0x10;

describe('the clocks of a restored guest', function () {
  this.timeout(limit(120_000));
  const store = new MemoryStore();
  const machines: Machine[] = [];
  let id: string;
  let saved: SavedMachineState;
  let console: GuestConsole;

  before(async function () {
    requireKvm(this);
    const machine = await Machine.create({
      kernel: probe('probe.bzImage'),
      initrd: null,
      cmdline: null,
      memoryBytes: 64 << 20,
      cpus: 2,
    });
    machines.push(machine);
    console = new GuestConsole(machine);
    await machine.resume();
    await console.line(/TICK/);
    ({ id } = await machine.save(store, SAVE));
    await machine.stop();
    saved = stateOf(id);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  const stateOf = (snapshot: string): SavedMachineState =>
    decodeMachineState(store.open(snapshot).metadata.state);

  /** Restores the snapshot as one that was saved `ageNs` ago, or at a time that is not known. */
  async function restore(ageNs: bigint | null, clock?: RestoreClock): Promise<Machine> {
    const snapshot = store.open(id);
    const { realtimeNs: _, ...vm } = saved.vm;
    const realtimeNs = BigInt(Date.now()) * 1_000_000n - (ageNs ?? 0n);
    const state = encodeMachineState({ ...saved, vm: ageNs === null ? vm : { ...vm, realtimeNs } });
    const open: OpenSnapshot = { ...snapshot, metadata: { ...snapshot.metadata, state } };
    const machine = await Machine.restore(open, {
      ...store.place,
      ...(clock === undefined ? {} : { clock }),
    });
    machines.push(machine);
    return machine;
  }

  /** How far kvmclock and the TSC of each vCPU have advanced since the save, before the guest runs again. */
  async function advance(machine: Machine): Promise<{ clockNs: bigint; tscs: bigint[] }> {
    const now = stateOf((await machine.save(store, SAVE)).id);
    const tsc = ({ msrs }: SavedMachineState['vcpus'][number]) =>
      msrs.find(({ index }) => index === TSC)!.value;
    return {
      clockNs: now.vm.clockNs - saved.vm.clockNs,
      tscs: now.vcpus.map((vcpu, i) => tsc(vcpu) - tsc(saved.vcpus[i]!)),
    };
  }

  async function ticks(machine: Machine): Promise<number> {
    const restored = new GuestConsole(machine, console);
    await machine.resume();
    const first = Number(/TICK (\d+)/.exec(await restored.line(/TICK/))![1]);
    await restored.command('sum 1', /^SUM/);
    const later = Number(/TICK (\d+)/.exec(await restored.line(/TICK/))![1]);
    return later - first;
  }

  it('are saved with the wall clock of the host', () => {
    const ageNs = BigInt(Date.now()) * 1_000_000n - saved.vm.realtimeNs!;
    assert(ageNs > -SECOND && ageNs < HOUR, `${ageNs}`);
  });

  it('advance by the time since the save', async () => {
    const machine = await restore(HOUR);
    assert.deepEqual(machine.notices, []);
    const { clockNs, tscs } = await advance(machine);
    assert(clockNs >= HOUR && clockNs < HOUR + HOUR / 2n, `${clockNs}`);
    if (describeHost().kind === 'pvm') return; // its TSC is the host's
    const hour = (HOUR * BigInt(saved.vcpus[0]!.tscKhz)) / 1_000_000n;
    for (const tsc of tscs) assert(tsc >= hour && tsc < hour + hour / 2n, `${tsc}`);
  });

  it('continue where they stood if the saved time shall be kept', async () => {
    const { clockNs, tscs } = await advance(await restore(HOUR, 'saved'));
    assert(clockNs >= 0n && clockNs < HOUR / 2n, `${clockNs}`);
    const hour = (HOUR * BigInt(saved.vcpus[0]!.tscKhz)) / 1_000_000n;
    for (const tsc of tscs) assert(tsc >= 0n && tsc < hour / 2n, `${tsc}`);
  });

  it('continue where they stood if the host’s clock went back, and the user is told', async () => {
    const machine = await restore(-HOUR);
    assert.match(machine.notices.join('\n'), /^the host's clock is 3(600|599) s behind the time of the save/);
    const { clockNs } = await advance(machine);
    assert(clockNs >= 0n && clockNs < HOUR / 2n, `${clockNs}`);
  });

  it('continue where they stood after a save by an earlier version', async () => {
    const { clockNs } = await advance(await restore(null));
    assert(clockNs >= 0n && clockNs < HOUR / 2n, `${clockNs}`);
  });

  for (const clock of ['host', 'saved'] as const)
    it(`tick on without a flood after an hour, with the clock ${clock}`, async () => {
      const passed = await ticks(await restore(HOUR, clock));
      assert(passed < 1000, `an hour has 18,000 ticks; ${passed} passed`);
    });
});
