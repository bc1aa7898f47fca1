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
});
