/** CPU templates on this host: refused under PVM; elsewhere the guest boots with what was asked for. */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../src/errors.js';
import { closeMachine } from '../../src/native/kvm.js';
import { bootState } from '../../src/vmm/boot/boot-state.js';
import { cpuidWord } from '../../src/vmm/fit/cpu-features.js';
import { TEMPLATE_MSRS } from '../../src/vmm/fit/cpu-templates.js';
import { fitOf } from '../../src/vmm/fit/snapshot-fit.js';
import { profileOfThisHost } from '../../src/vmm/fit/this-host.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { createVm, enterKernel } from '../../src/vmm/kvm/vm.js';
import { Machine } from '../../src/vmm/machine.js';
import { decodeMachineState } from '../../src/vmm/machine-state.js';
import { CPU_TEMPLATES, type MachineConfig } from '../../src/vmm/machine-types.js';
import { limit } from '../timeouts.js';
import { GuestConsole } from './guest-console.js';
import { kvmKind, probe, requireKvm } from './kvm.js';
import { MemoryStore } from './memory-store.js';

const CONFIG: MachineConfig = {
  kernel: probe('probe.bzImage'),
  initrd: null,
  cmdline: null,
  memoryBytes: 64 << 20,
  cpus: 2,
};

describe('a machine with a CPU template', function () {
  this.timeout(limit(120_000));
  const machines: Machine[] = [];
  before(function () {
    requireKvm(this);
  });
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.stop();
  });

  if (kvmKind() === 'pvm') {
    it('is refused on a PVM host, in one sentence', async () => {
      for (const cpuTemplate of CPU_TEMPLATES)
        await assert.rejects(Machine.create({ ...CONFIG, cpuTemplate }), {
          code: 'HOST_LACKS',
          message: `a PVM host cannot give the CPU template ${cpuTemplate}: its guests always see all features of the host`,
        });
    });

    it('is not entered where KVM keeps other features than those that were set', () => {
      // PVM does. Machine.create would refuse it before.
      const host = describeHost();
      const machine = createVm(host, 1, [], false);
      try {
        assert.throws(
          () =>
            enterKernel(machine, host, {
              cpus: 1,
              slots: [{ gpa: 0, sizeBytes: 64 << 20 }],
              boot: bootState('elf', 0x100_0000),
              cpuTemplate: 'minimal',
            }),
          (error) =>
            error instanceof LivesnapError &&
            error.code === 'HOST_LACKS' &&
            /KVM does not keep to the CPU template minimal: it changes .*AVX2/.test(error.message),
        );
      } finally {
        closeMachine(machine);
      }
    });
    return;
  }

  for (const cpuTemplate of ['minimal', 'x86-64-v2'] as const)
    it(`has the processor of ${cpuTemplate} on hardware virtualization, and keeps it over a restore`, async () => {
      const store = new MemoryStore();
      let machine = await Machine.create({ ...CONFIG, cpuTemplate });
      machines.push(machine);
      let console = new GuestConsole(machine);
      for (let generation = 0; generation < 2; generation++) {
        await machine.resume();
        await console.line(/TICK/);
        const { id } = await machine.save(store, { vm: 'test', tags: [], then: 'stop' });
        const { metadata } = store.open(id);
        for (const { cpuid, msrs } of decodeMachineState(metadata.state).vcpus) {
          assert.equal((cpuidWord(cpuid, 1, 0, 'ecx') >>> 28) & 1, 0, 'AVX');
          assert.equal(cpuidWord(cpuid, 7, 0, 'ebx') & (1 << 5), 0, 'AVX2');
          const arch = msrs.find(({ index }) => index === TEMPLATE_MSRS[0]);
          assert.equal((arch?.value ?? 0n) & 1n, 0n, 'RDCL_NO');
        }
        assert.deepEqual(fitOf(metadata, profileOfThisHost()), []);
        machine = await Machine.restore(store.open(id), store.place);
        machines.push(machine);
        assert.equal(machine.config.cpuTemplate, cpuTemplate);
        console = new GuestConsole(machine, console);
      }
    });
});
