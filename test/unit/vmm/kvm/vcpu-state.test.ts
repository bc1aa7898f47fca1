import assert from 'node:assert/strict';
import { mustSetXcrs } from '../../../../src/vmm/kvm/vcpu-state.js';

/** struct kvm_xcrs with so many registers, somewhere in a larger buffer. */
function xcrs(count: number): Uint8Array {
  const bytes = Buffer.alloc(400, 0xff).subarray(8).fill(0);
  bytes.writeUInt32LE(count, 0);
  return bytes;
}

describe('mustSetXcrs', () => {
  it('sets what a processor with XSAVE saved', () => {
    assert.equal(mustSetXcrs(xcrs(1), xcrs(1)), true);
  });

  it('sets nothing when the processor that was saved had no XSAVE, whatever this one has', () => {
    assert.equal(mustSetXcrs(xcrs(0), xcrs(0)), false);
    assert.equal(mustSetXcrs(xcrs(0), xcrs(1)), false);
  });

  it('refuses to drop what this host cannot hold', () => {
    assert.throws(() => mustSetXcrs(xcrs(1), xcrs(0)), {
      code: 'HOST_LACKS',
      message: 'the snapshot needs XSAVE, which this host does not have',
    });
  });
});
