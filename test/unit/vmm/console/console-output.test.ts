import assert from 'node:assert/strict';
import {
  ConsoleOutput,
  MAX_KEPT_BYTES,
  MAX_MESSAGES_UNDER_WAY,
} from '../../../../src/vmm/console/console-output.js';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

describe('ConsoleOutput', () => {
  it('sends bytes in order: at a line end, when many have gathered, and when flushed', () => {
    const sent: string[] = [];
    const output = new ConsoleOutput(
      (bytes) => sent.push(text(bytes)),
      () => sent.length,
    );
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

  it('sends bytes that later output does not change', () => {
    const sent: Uint8Array[] = [];
    const output = new ConsoleOutput(
      (bytes) => sent.push(bytes),
      () => sent.length,
    );
    output.write(Buffer.from('first\n'));
    output.write(Buffer.from('other\n'));
    assert.equal(text(sent[0]!), 'first\n');
  });
});

describe('ConsoleOutput while the main thread is busy', () => {
  interface Message {
    readonly bytes: Uint8Array;
    readonly missed: number;
  }
  let sent: Message[];
  let taken: number;
  let output: ConsoleOutput;
  beforeEach(() => {
    sent = [];
    taken = 0;
    output = new ConsoleOutput(
      (bytes, missed) => sent.push({ bytes, missed }),
      () => taken,
    );
  });
  const bytesOf = (messages: Message[]) => messages.reduce((sum, { bytes }) => sum + bytes.length, 0);

  it('keeps a bounded number of bytes and reports how many it dropped', () => {
    const line = Buffer.from('0123456\n');
    for (let i = 0; i < 1 << 19; i++) output.write(line);
    assert.equal(sent.length, MAX_MESSAGES_UNDER_WAY);
    assert(output.isHeldBack);
    const before = sent.length;
    // The main thread reads again. All kept bytes come, and only the first message follows a gap.
    while (!output.isEmpty) {
      taken = sent.length;
      output.flush();
    }
    const [first, ...others] = sent.slice(before);
    assert.equal(bytesOf(sent) + first!.missed, line.length << 19);
    assert.equal(bytesOf(sent.slice(before)), MAX_KEPT_BYTES);
    assert(others.every(({ missed }) => missed === 0));
  });

  it('drops the oldest bytes and keeps the newest in order', () => {
    for (let i = 0; i < MAX_MESSAGES_UNDER_WAY; i++) output.write(Buffer.from('early\n'));
    output.write(Buffer.from('lost'));
    output.write(Buffer.alloc(MAX_KEPT_BYTES - 5, 'x'));
    output.write(Buffer.from('late\n'));
    assert.equal(sent.length, MAX_MESSAGES_UNDER_WAY);
    output.flushAll();
    const rest = sent.slice(MAX_MESSAGES_UNDER_WAY);
    assert.equal(rest[0]!.missed, 'lost'.length);
    const received = text(Buffer.concat(rest.map(({ bytes }) => bytes)));
    assert.equal(received, `${'x'.repeat(MAX_KEPT_BYTES - 5)}late\n`);
  });

  it('keeps the end of a write that is longer than it keeps', () => {
    output.write(Buffer.alloc(MAX_KEPT_BYTES + 10, 'y'));
    output.flushAll();
    assert.equal(bytesOf(sent), MAX_KEPT_BYTES);
    assert.equal(sent[0]!.missed, 10);
  });
});
