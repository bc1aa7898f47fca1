import assert from 'node:assert/strict';
import { discardBytes, trimHeap } from '../../../src/native/heap.js';

const PAGE = 4096;

describe('memory given back to the kernel', () => {
  it('is zero in whole pages, and what lies beside the buffer stays', () => {
    const memory = new Uint8Array(new SharedArrayBuffer(64 * PAGE)).fill(7);
    const part = memory.subarray(10 * PAGE + 1, 20 * PAGE - 1);
    discardBytes(part);
    const zeros = part.filter((byte) => byte === 0).length;
    assert(zeros >= 8 * PAGE && zeros % PAGE === 0, `${zeros} bytes are zero`);
    const outside = [...memory.subarray(0, 10 * PAGE + 1), ...memory.subarray(20 * PAGE - 1)];
    assert(outside.every((byte) => byte === 7));
    memory.fill(8);
    assert(memory.every((byte) => byte === 8));
  });

  it('is not part of a page', () => {
    const memory = new Uint8Array(PAGE - 1).fill(7);
    discardBytes(memory);
    discardBytes(memory.subarray(0, 0));
    assert(memory.every((byte) => byte === 7));
    assert.throws(() => discardBytes([] as unknown as Uint8Array), TypeError);
    trimHeap();
  });
});
