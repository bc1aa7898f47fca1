import assert from 'node:assert/strict';
import { ExitReason } from '../../../../src/vmm/kvm/abi.js';
import { describeExit, describeTripleFault } from '../../../../src/vmm/kvm/exit-text.js';

const exit = { reason: 0, runFailed: false, detail: 0, suberror: 0, instruction: null };

describe('describeTripleFault', () => {
  it('names the address where KVM keeps the registers', () => {
    for (const kind of ['vmx', 'pvm'] as const) {
      assert.equal(
        describeTripleFault(kind, 2, 0x20_0009n),
        'vCPU 2 reset the machine by a triple fault at rip 0x200009',
      );
    }
  });

  it('names no address where KVM has reset the vCPU', () => {
    for (const kind of ['svm', 'unknown'] as const) {
      assert.equal(describeTripleFault(kind, 0, 0xfff0n), 'vCPU 0 reset the machine by a triple fault');
    }
  });
});

describe('describeExit', () => {
  it('names the bytes and the address of an instruction that cannot be emulated', () => {
    const instruction = Uint8Array.of(0xf3, 0x0f, 0x05);
    assert.equal(
      describeExit(1, 0x100_0000n, { ...exit, reason: ExitReason.INTERNAL_ERROR, suberror: 1, instruction }),
      'KVM cannot run the instruction f3 0f 05 at 0x1000000 (vCPU 1)',
    );
  });

  it('names the address alone when KVM gives no instruction bytes', () => {
    assert.equal(
      describeExit(0, 0xd000_0000n, { ...exit, reason: ExitReason.INTERNAL_ERROR, suberror: 1 }),
      'KVM cannot run the instruction at 0xd0000000 (vCPU 0) and gives no instruction bytes',
    );
  });

  it('names the errno of a KVM_RUN that failed', () => {
    assert.equal(
      describeExit(0, 16n, { ...exit, reason: 0xffff_ffff, runFailed: true, detail: 14 }),
      'KVM_RUN of vCPU 0 failed with errno 14 at rip 0x10',
    );
  });

  it('names the reason of any other exit', () => {
    assert.equal(
      describeExit(0, 16n, { ...exit, reason: ExitReason.INTERNAL_ERROR, suberror: 3 }),
      'vCPU 0 stopped at rip 0x10: an internal error of KVM (suberror 3, detail 0x0)',
    );
    assert.match(describeExit(0, 16n, { ...exit, reason: 99 }), /an unknown exit reason, 99/);
  });
});
