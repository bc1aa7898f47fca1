import assert from 'node:assert/strict';
import { ByteQueue } from '../../../../src/vmm/devices/byte-queue.js';

describe('ByteQueue', () => {
  it('gives bytes back in order, around its end', () => {
    const queue = new ByteQueue(4);
    for (let byte = 0; byte < 10; byte++) {
      queue.push(Uint8Array.of(byte, byte + 100));
      assert.deepEqual([...queue.peek()], [byte, byte + 100]);
      assert.equal(queue.shift(), byte);
      assert.equal(queue.shift(), byte + 100);
    }
    assert.equal(queue.length, 0);
  });

  it('accepts as many bytes as there is room for', () => {
    const queue = new ByteQueue(4);
    assert.equal(queue.push(Uint8Array.of(1, 2, 3)), 3);
    assert.equal(queue.push(Uint8Array.of(4, 5)), 1);
    assert.equal(queue.push(Uint8Array.of(6)), 0);
    assert.deepEqual([...queue.peek()], [1, 2, 3, 4]);
    queue.clear();
    assert.deepEqual([...queue.peek()], []);
  });

  it('takes bytes back at its front, and gives the newest from its end, around its end', () => {
    const queue = new ByteQueue(4);
    queue.push(Uint8Array.of(3, 4));
    queue.unshiftByte(2);
    queue.unshiftByte(1);
    assert.deepEqual([...queue.peek()], [1, 2, 3, 4]);
    assert.equal(queue.pop(), 4);
    assert.equal(queue.shift(), 1);
    queue.pushByte(5);
    assert.deepEqual([...queue.peek()], [2, 3, 5]);
    assert.deepEqual([queue.pop(), queue.pop(), queue.pop(), queue.length], [5, 3, 2, 0]);
  });
});
