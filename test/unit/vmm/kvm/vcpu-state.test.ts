import assert from 'node:assert/strict';
import { mustSetXcrs } from '../../../../src/vmm/kvm/vcpu-state.js';

/** struct kvm_xcrs with so many registers, somewhere in a larger buffer. */
function xcrs(count: number): Uint8Array {
  const bytes = Buffer.alloc(400, 0xff).subarray(8).fill(0);
  bytes.writeUInt32LE(count, 0);
  return bytes;
}

describe('mustSetXcrs', () => {
  it('is true for the registers of a processor with XSAVE', () => {
    assert.equal(mustSetXcrs(xcrs(1), xcrs(1)), true);
  });

  it('is false when the saved processor had no XSAVE, whether this one has it or not', () => {
    assert.equal(mustSetXcrs(xcrs(0), xcrs(0)), false);
    assert.equal(mustSetXcrs(xcrs(0), xcrs(1)), false);
  });

  it('refuses a snapshot that needs XSAVE on a host without it', () => {
    assert.throws(() => mustSetXcrs(xcrs(1), xcrs(0)), {
      code: 'HOST_LACKS',
      message: 'the snapshot needs XSAVE, which this host does not have',
    });
  });
});
