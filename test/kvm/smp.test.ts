/** Machines with several vCPUs: what each vCPU knows of itself, and what they do together, before and after restores. */
import assert from 'node:assert/strict';
import { closeMachine, type KvmMachine, vcpuIoctl } from '../../src/native/kvm.js';
import { closeMemory, createMemory } from '../../src/native/memory.js';
import { Ioctl, Msr } from '../../src/vmm/kvm/abi.js';
import { guestCpuid, supportedCpuid } from '../../src/vmm/kvm/cpuid.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { getMsrs, restoreVcpus, saveVcpus, setCpuid, type VcpuState } from '../../src/vmm/kvm/vcpu-state.js';
import { createVm } from '../../src/vmm/kvm/vm.js';
import { Machine } from '../../src/vmm/machine.js';
import { GuestConsole } from './guest-console.js';
import { probe, requireKvm } from './kvm.js';
import { lockCounts } from './lock-counts.js';
import { MemoryStore } from './memory-store.js';

const SAVE = { vm: 'test', tags: [], then: 'pause' } as const;
/** MP states (Linux, Documentation/virt/kvm/api.rst, KVM_GET_MP_STATE). */
const MpState = { runnable: 0, uninitialized: 1, initReceived: 2, halted: 3, sipiReceived: 4 } as const;

describe('a machine with several vCPUs', () => {
  const machines: Machine[] = [];

  before(function () {
    requireKvm(this);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  async function start(cpus: number): Promise<[Machine, GuestConsole]> {
    const machine = await Machine.create({
      kernel: probe('probe.bzImage'),
      initrd: null,
      cmdline: null,
      memoryBytes: 64 << 20,
      cpus,
    });
    machines.push(machine);
    const console = new GuestConsole(machine);
    await machine.resume();
    await console.line(new RegExp(`^PROBE READY .* cpus=${cpus}$`));
    return [machine, console];
  }

  /** Saves and stops the machine, and restores it. */
  async function renew(machine: Machine, from: GuestConsole): Promise<[Machine, GuestConsole]> {
    const store = new MemoryStore();
    const { id } = await machine.save(store, SAVE);
    await machine.stop();
    const restored = await Machine.restore(store.open(id), store.place);
    machines.push(restored);
    const console = new GuestConsole(restored, from);
    await restored.resume();
    return [restored, console];
  }

  for (const cpus of [1, 2, 3, 4, 8, 16]) {
    it(`keeps the IDs and timers of ${cpus} vCPU${cpus === 1 ? '' : 's'}`, async () => {
      const ids = `IDS ${Array.from({ length: cpus }, (_, id) => `${id}/${id}/${id}`).join(',')}`;
      let [machine, console] = await start(cpus);
      assert.equal(await console.command('ids', /^IDS/), ids);
      for (let generation = 0; generation < 2; generation++) {
        const before = await console.counters();
        [machine, console] = await renew(machine, console);
        assert.equal(await console.command('ids', /^IDS/), ids);
        // The timers of the APs are periodic: an answer to `ids` came after one more interrupt of each.
        const after = await console.counters();
        assert.equal(after.length, cpus);
        for (let ap = 1; ap < cpus; ap++) assert(after[ap]! > before[ap]!, `vCPU ${ap} has its timer`);
      }
    });
  }

  for (const cpus of [2, 4]) {
    it(`keeps what ${cpus} vCPUs count under one lock`, async () => {
      let [machine, console] = await start(cpus);
      await console.command('load 1', /^OK/);
      let counted = 0n;
      for (let cycle = 0; cycle < 6; cycle++) {
        await console.line(/TICK/);
        [machine, console] = await renew(machine, console);
        const { locked } = lockCounts(await console.command('locks', /^LOCKS/));
        assert(locked > counted, 'the vCPUs count on');
        counted = locked;
        // Every vCPU answers this.
        await console.command('ids', /^IDS/);
      }
    });
  }

  it('keeps a vCPU that waits for its SIPI', async () => {
    let [machine, console] = await start(3);
    await console.command('init 1', /^OK/);
    const [, before] = await console.counters();
    [machine, console] = await renew(machine, console);
    await console.line(/TICK/);
    await console.line(/TICK/);
    assert.equal((await console.counters())[1], before, 'it waits on');
    await console.command('startup 1', /^OK/);
    [machine, console] = await renew(machine, console);
    assert.equal(await console.command('ids', /^IDS/), 'IDS 0/0/0,1/1/1,2/2/2');
    assert((await console.counters())[1]! > before!, 'it runs again');
  });

  it('is refused beyond what the host or an APIC ID allows', async () => {
    await assert.rejects(
      Machine.create({
        kernel: probe('probe.bzImage'),
        initrd: null,
        cmdline: null,
        memoryBytes: 64 << 20,
        cpus: 255,
      }),
      { code: 'USAGE', message: /255 vCPUs/ },
    );
  });
});

describe('the state of several vCPUs', () => {
  before(function () {
    requireKvm(this);
  });

  /** Calls `body` with a new VM of `cpus` vCPUs. */
  function withVm<T>(cpus: number, body: (machine: KvmMachine) => T): T {
    const memory = createMemory(2 << 20);
    const machine = createVm(describeHost(), cpus, [{ gpa: 0, memory }], false);
    try {
      return body(machine);
    } finally {
      closeMachine(machine);
      closeMemory(memory);
    }
  }

  const setMpState = (machine: KvmMachine, vcpu: number, state: number): void => {
    vcpuIoctl(machine, vcpu, Ioctl.SET_MP_STATE, new Uint8Array(Uint32Array.of(state).buffer));
  };

  /** Counters of KVM's Hyper-V interface (Hyper-V TLFS, 12.3 and 9.4.1). A PVM host does not list them. */
  const HV_X64_MSR_VP_RUNTIME = 0x4000_0010;
  const HV_X64_MSR_TIME_REF_COUNT = 0x4000_0020;
  const CLOCKS = new Set<number>([
    ...[Msr.IA32_TSC, Msr.IA32_TSC_DEADLINE],
    ...[HV_X64_MSR_VP_RUNTIME, HV_X64_MSR_TIME_REF_COUNT],
  ]);
  const withoutTime = ({ msrs, ...state }: VcpuState) => ({
    ...state,
    msrs: msrs.filter(({ index }) => !CLOCKS.has(index)),
  });

  for (const cpus of [1, 2, 3, 4, 8, 16]) {
    it(`of ${cpus} is the same after a restore: CPUID, MP states, LAPICs, MSRs`, () => {
      const saved = withVm(cpus, (machine) => {
        const supported = supportedCpuid();
        const states = [MpState.runnable, MpState.uninitialized, MpState.initReceived, MpState.halted];
        for (let vcpu = 0; vcpu < cpus; vcpu++) {
          setCpuid(machine, vcpu, guestCpuid(supported, vcpu, cpus, describeHost()));
          setMpState(machine, vcpu, states[vcpu % states.length]!);
        }
        return saveVcpus(machine, describeHost().kind, cpus);
      });
      saved.forEach(({ cpuid, lapic, mpState }, vcpu) => {
        assert.equal(cpuid.find((leaf) => leaf.function === 1)!.ebx >>> 24, vcpu);
        for (const leaf of cpuid.filter((leaf) => leaf.function === 0xb)) assert.equal(leaf.edx, vcpu);
        assert.equal(lapic[0x23], vcpu);
        assert.equal(mpState, [0, 1, 2, 3][vcpu % 4]);
      });
      const restored = withVm(cpus, (machine) => {
        restoreVcpus(machine, saved, { tscControl: describeHost().tscControl, addedNs: 0n });
        return saveVcpus(machine, describeHost().kind, cpus);
      });
      assert.deepEqual(restored.map(withoutTime), saved.map(withoutTime));
    });
  }

  it('has a vCPU with a pending SIPI start at its vector', () => {
    const cpus = 2;
    const saved = withVm(cpus, (machine) => {
      for (let vcpu = 0; vcpu < cpus; vcpu++)
        setCpuid(machine, vcpu, guestCpuid(supportedCpuid(), vcpu, cpus, describeHost()));
      setMpState(machine, 1, MpState.sipiReceived);
      return saveVcpus(machine, describeHost().kind, cpus);
    });
    assert.equal(saved[1]!.mpState, MpState.runnable);
    assert.equal(saved[1]!.regs.rip, 0n);
    withVm(cpus, (machine) => {
      restoreVcpus(machine, saved, { tscControl: describeHost().tscControl, addedNs: 0n });
      assert.deepEqual(
        saveVcpus(machine, describeHost().kind, cpus).map(withoutTime),
        saved.map(withoutTime),
      );
    });
  });

  it('has TSCs that agree after a restore', () => {
    const cpus = 16;
    withVm(cpus, (machine) => {
      for (let vcpu = 0; vcpu < cpus; vcpu++)
        setCpuid(machine, vcpu, guestCpuid(supportedCpuid(), vcpu, cpus, describeHost()));
      const saved = saveVcpus(machine, describeHost().kind, cpus);
      withVm(cpus, (restored) => {
        restoreVcpus(restored, saved, { tscControl: describeHost().tscControl, addedNs: 0n });
        let last = saved[0]!.msrs.find(({ index }) => index === Msr.IA32_TSC)!.value;
        // Read in turn, around twice: each later read is higher, whichever vCPU it is of.
        for (let i = 0; i < 2 * cpus; i++) {
          const { value } = getMsrs(restored, (i * 7) % cpus, [Msr.IA32_TSC])[0]!;
          assert(value > last, `the TSC of vCPU ${(i * 7) % cpus} is behind`);
          last = value;
        }
      });
    });
  });
});
