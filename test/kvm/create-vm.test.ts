import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  closeMachine,
  createMachine,
  machineIoctl,
  prepareMachine,
  type VmRecipe,
} from '../../src/native/kvm.js';
import { closeMemory, createMemory } from '../../src/native/memory.js';
import { Ioctl } from '../../src/vmm/kvm/abi.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { createVm, prepareVm } from '../../src/vmm/kvm/vm.js';
import { requireKvm } from './kvm.js';

/** How many VMs this process has open. */
function openVms(): number {
  const target = (fd: string): string => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // the descriptor of the listing itself
    }
  };
  return readdirSync('/proc/self/fd').filter((fd) => target(fd) === 'anon_inode:kvm-vm').length;
}

describe('createVm', () => {
  before(function () {
    requireKvm(this);
  });

  it('closes the VM when it cannot be set up', () => {
    const memory = createMemory(2 << 20);
    try {
      const before = openVms();
      const overlapping = [
        { gpa: 0, memory },
        { gpa: 0, memory },
      ];
      assert.throws(() => createVm(describeHost(), 1, overlapping, false), { code: 'SYSTEM' });
      assert.equal(openVms(), before);
    } finally {
      closeMemory(memory);
    }
  });

  it('takes the VM that was prepared, once', async () => {
    const before = openVms();
    prepareVm();
    while (openVms() === before) await sleep(5);
    prepareVm(); // there is one
    const machine = createVm(describeHost(), 1, [], false);
    assert.equal(openVms(), before + 1);
    const other = createVm(describeHost(), 1, [], false);
    assert.equal(openVms(), before + 2);
    closeMachine(machine);
    closeMachine(other);
    assert.equal(openVms(), before);
  });

  it('makes a VM of its own where another kind of VM was prepared', () => {
    prepareVm();
    const plain = createMachine();
    machineIoctl(plain, Ioctl.CREATE_IRQCHIP, 0); // fails in a VM that has one
    const machine = createVm(describeHost(), 1, [], false);
    for (const each of [plain, machine]) closeMachine(each);
  });

  it('reports what fails, also if it has failed before in the preparation', () => {
    const before = openVms();
    const twice: VmRecipe = {
      trappedMsr: null,
      readsLog: true,
      steps: [
        [Ioctl.CREATE_IRQCHIP, 0],
        [Ioctl.CREATE_IRQCHIP, 0],
      ],
    };
    prepareMachine(twice);
    assert.throws(() => createMachine(twice), {
      code: 'SYSTEM',
      errnoName: 'EEXIST',
      syscall: 'KVM VM ioctl 0xae60',
    });
    assert.equal(openVms(), before);
  });
});
