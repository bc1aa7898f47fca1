import assert from 'node:assert/strict';
import { ConsoleInput } from '../../../src/vmm/console-input.js';
import { ConsoleOutput } from '../../../src/vmm/console-output.js';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

describe('console output', () => {
  it('goes at the end of a line, when there is much of it, and when flushed, in order', () => {
    const sent: string[] = [];
    const output = new ConsoleOutput((bytes) => sent.push(text(bytes)));
    output.write(Buffer.from('one'));
    assert.deepEqual(sent, []);
    assert.equal(output.isEmpty, false);
    output.write(Buffer.from(' line\r\nand'));
    assert.deepEqual(sent, ['one line\r\n']);
    output.flush();
    output.flush();
    assert.deepEqual(sent, ['one line\r\n', 'and']);
    assert.equal(output.isEmpty, true);
    output.write(Buffer.alloc(5000, 'x'));
    output.flush();
    assert.equal(sent.slice(2).join(''), 'x'.repeat(5000));
  });

  it('gives away bytes that stay as they were', () => {
    const sent: Uint8Array[] = [];
    const output = new ConsoleOutput((bytes) => sent.push(bytes));
    output.write(Buffer.from('first\n'));
    output.write(Buffer.from('other\n'));
    assert.equal(text(sent[0]!), 'first\n');
  });
});

describe('console input', () => {
  it('waits while the port is full, loses nothing and says how much has gone', () => {
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
