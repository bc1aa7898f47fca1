import assert from 'node:assert/strict';
import { nestedNotices } from '../../../../src/vmm/kvm/nested.js';
import type { Control, Sregs } from '../../../../src/vmm/kvm/registers.js';

const vcpu = (control: Partial<Control>): { sregs: Sregs } => ({
  sregs: { segments: {}, tables: {}, control: { cr4: 0n, efer: 0n, ...control } } as unknown as Sregs,
});

describe('nestedNotices', () => {
  it('say nothing of a guest that never switched VMX or SVM on', () => {
    assert.deepEqual(nestedNotices([vcpu({ cr4: 0x3006e0n & ~0x2000n, efer: 0xd01n }), vcpu({})]), []);
  });

  it('tell of a guest that had VMX or SVM on, on any vCPU', () => {
    for (const used of [{ cr4: 0x20a0n }, { efer: 0x1d01n }]) {
      const [notice, ...more] = nestedNotices([vcpu({}), vcpu(used)]);
      assert.match(notice!, /VMX or SVM switched on .* do not survive/);
      assert.deepEqual(more, []);
    }
  });
});
