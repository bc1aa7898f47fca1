import assert from 'node:assert/strict';
import { I8042 } from '../../../../src/vmm/devices/i8042.js';
import { FakeIrq } from './fakes.js';

const DATA = 0;
const COMMAND = 4;
const OUTPUT_FULL = 0x01;
const TIMEOUT = 0x40;

class Bench {
  readonly irq = new FakeIrq();
  resets = 0;
  readonly controller = new I8042({
    irq: this.irq,
    onReset: () => {
      this.resets++;
    },
  });

  get status(): number {
    return this.controller.read(COMMAND, 1);
  }

  command(value: number, ...data: number[]): this {
    this.controller.write(COMMAND, 1, value);
    for (const byte of data) this.controller.write(DATA, 1, byte);
    return this;
  }

  /** The answer, which must be there at once. */
  get answer(): number {
    assert.equal(this.status & OUTPUT_FULL, OUTPUT_FULL, 'there is an answer');
    const value = this.controller.read(DATA, 1);
    assert.equal(this.status & (OUTPUT_FULL | TIMEOUT), 0, 'reading takes it');
    return value;
  }
}

describe('I8042', () => {
  it('has no output at first, and accepts every byte', () => {
    const b = new Bench();
    assert.equal(b.status, 0x14);
    for (let command = 0; command < 0xf0; command++) {
      b.command(command);
      assert.equal(b.status & 0x02, 0, 'the input buffer is never full');
    }
    assert.equal(b.resets, 0);
  });

  it('answers every command of a probing driver', () => {
    const b = new Bench();
    assert.equal(b.command(0xaa).answer, 0x55, 'self-test');
    assert.equal(b.command(0xab).answer, 0x00, 'keyboard port');
    assert.notEqual(b.command(0xa9).answer, 0x00, 'second port');
    assert.equal(b.command(0xc0).answer & 0x80, 0x80, 'input port');
    assert.equal(b.command(0xd0).answer & 0x01, 0x01, 'output port');
  });

  it('keeps its command byte, and changes its bits by command', () => {
    const b = new Bench();
    assert.equal(b.command(0x60, 0x47).command(0x20).answer, 0x47);
    assert.equal(b.command(0xad).command(0x20).answer, 0x57);
    assert.equal(b.command(0xae).command(0x20).answer, 0x47);
    b.command(0x60, 0x00);
    assert.equal(b.status & 0x04, 0, 'the system flag is the command byte’s');
  });

  it('shows that it has no second port: the loop-back does not come from the mouse', () => {
    const b = new Bench().command(0xd3, 0x5a);
    assert.equal(b.status & 0x20, 0);
    assert.equal(b.answer, 0x5a);
  });

  it('reports a time-out for bytes to the missing keyboard and mouse', () => {
    const b = new Bench();
    b.controller.write(DATA, 1, 0xf2);
    assert.equal(b.status & TIMEOUT, TIMEOUT);
    assert.equal(b.answer, 0xfe);
    b.command(0xd4, 0xff);
    assert.equal(b.status & TIMEOUT, TIMEOUT);
    assert.equal(b.answer, 0xfe);
  });

  it('raises its interrupt, when enabled, until the answer is read', () => {
    const b = new Bench().command(0xd2, 1);
    assert.equal(b.irq.level, false);
    b.command(0x60, 0x05);
    assert.equal(b.irq.level, true);
    assert.equal(b.answer, 1);
    assert.equal(b.irq.level, false);
    b.command(0xd2, 0x1c);
    assert.equal(b.irq.level, true);
    assert.equal(b.answer, 0x1c);
  });

  it('shows in its status whether the last write was a command', () => {
    const b = new Bench().command(0xd2);
    assert.equal(b.status & 0x08, 0x08);
    b.controller.write(DATA, 1, 0);
    assert.equal(b.status & 0x08, 0);
  });

  it('resets the machine by each of its commands for that', () => {
    assert.equal(new Bench().command(0xfe).resets, 1);
    assert.equal(new Bench().command(0xf0).resets, 1);
    assert.equal(new Bench().command(0xd1, 0xde).resets, 1);
    assert.equal(new Bench().command(0xff).command(0xd1, 0xdf).resets, 0);
  });
});
