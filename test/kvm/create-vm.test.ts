import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { closeMemory, createMemory } from '../../src/native/memory.js';
import { describeHost } from '../../src/vmm/kvm/host.js';
import { createVm } from '../../src/vmm/kvm/vm.js';
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
});
