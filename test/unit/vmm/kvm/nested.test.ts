import assert from 'node:assert/strict';
import { nestedNotices } from '../../../../src/vmm/kvm/nested.js';
import type { Control, Sregs } from '../../../../src/vmm/kvm/registers.js';

const vcpu = (control: Partial<Control>): { sregs: Sregs } => ({
  sregs: { segments: {}, tables: {}, control: { cr4: 0n, efer: 0n, ...control } } as unknown as Sregs,
});

describe('nestedNotices', () => {
  it('are none for a guest that never enabled VMX or SVM', () => {
    assert.deepEqual(nestedNotices([vcpu({ cr4: 0x3006e0n & ~0x2000n, efer: 0xd01n }), vcpu({})]), []);
  });

  it('warn about a guest that enabled VMX or SVM on any vCPU', () => {
    for (const used of [{ cr4: 0x20a0n }, { efer: 0x1d01n }]) {
      const [notice, ...more] = nestedNotices([vcpu({}), vcpu(used)]);
      assert.match(notice!, /had enabled VMX or SVM.* they are lost/);
      assert.deepEqual(more, []);
    }
  });
});
