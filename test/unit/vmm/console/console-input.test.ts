import assert from 'node:assert/strict';
import { ConsoleInput } from '../../../../src/vmm/console/console-input.js';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

describe('ConsoleInput', () => {
  it('keeps bytes in order while the port is full and reports how many the port took', () => {
    let room = 4;
    let port = '';
    let taken = 0;
    const input = new ConsoleInput(
      (bytes) => {
        const accepted = Math.min(room, bytes.length);
        room -= accepted;
        port += text(bytes.subarray(0, accepted));
        return accepted;
      },
      (bytes) => {
        taken += bytes;
      },
    );
    input.write(Buffer.from('abcdef'));
    input.write(Buffer.from('ghi'));
    assert.equal(port, 'abcd');
    assert.equal(taken, 4);
    room = 3;
    input.drain();
    assert.equal(port, 'abcdefg');
    room = 100;
    input.drain();
    input.drain();
    assert.equal(port, 'abcdefghi');
    assert.equal(taken, 9);
    input.write(Buffer.alloc(0));
    input.write(Buffer.from('j'));
    assert.equal(port, 'abcdefghij');
  });
});
