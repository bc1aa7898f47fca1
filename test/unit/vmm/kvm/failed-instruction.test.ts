import assert from 'node:assert/strict';
import { failedInstruction } from '../../../../src/vmm/kvm/failed-instruction.js';

/** The data of an exit as KVM lays it out: flags, size, 15 bytes, and what else there is for debugging. */
function exitData(flags: bigint, size: number, instruction: string): Uint8Array {
  const data = Buffer.alloc(128, 0xee);
  data.writeBigUInt64LE(flags, 0);
  data[8] = size;
  data.fill(0x90, 9, 24);
  Buffer.from(instruction, 'hex').copy(data, 9);
  return data;
}

describe('failedInstruction', () => {
  it('returns as many bytes as KVM fetched', () => {
    const bytes = failedInstruction(1, 8, exitData(1n, 5, 'f3480fb8c3'));
    assert.deepEqual(bytes, Uint8Array.of(0xf3, 0x48, 0x0f, 0xb8, 0xc3));
    assert.equal(failedInstruction(1, 3, exitData(1n, 1, 'cc'))!.length, 1);
  });

  it('returns null without the flag for instruction bytes', () => {
    assert.equal(failedInstruction(1, 8, exitData(0n, 5, 'f3480fb8c3')), null);
    assert.equal(failedInstruction(1, 8, exitData(2n, 5, 'cc')), null);
  });

  it('returns null when KVM filled too few words', () => {
    for (const words of [0, 1, 2]) assert.equal(failedInstruction(1, words, exitData(1n, 1, 'cc')), null);
  });

  it('returns null for another internal error, or a size of 0', () => {
    assert.equal(failedInstruction(3, 8, exitData(1n, 1, 'cc')), null);
    assert.equal(failedInstruction(1, 8, exitData(1n, 0, 'cc')), null);
  });

  it('returns at most 15 bytes, the longest instruction', () => {
    assert.equal(failedInstruction(1, 16, exitData(1n, 255, '0f'))!.length, 15);
  });

  it('returns a copy: the exit page may be reused', () => {
    const data = exitData(1n, 1, 'cc');
    const bytes = failedInstruction(1, 8, data);
    data.fill(0);
    assert.deepEqual(bytes, Uint8Array.of(0xcc));
  });
});
