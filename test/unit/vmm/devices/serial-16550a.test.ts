import assert from 'node:assert/strict';
import { INPUT_QUEUE_BYTES, Serial16550a } from '../../../../src/vmm/devices/serial-16550a.js';
import { FakeIrq } from './fakes.js';

const [RBR, THR, DLL, IER, DLM, IIR, FCR, LCR, MCR, LSR, MSR, SCR] = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7];
const MCR_OPEN = 0x0b; // DTR, RTS, OUT2
const LOOPBACK = 0x10;
const NONE = 0x01;
const FIFOS_ON = 0xc0;

/** A port with its surroundings; registers by their names in the data sheet. */
class Bench {
  readonly irq = new FakeIrq();
  output = '';
  bursts = 0;
  drained = 0;
  port: Serial16550a;

  constructor() {
    this.port = new Serial16550a(this.args());
  }

  args() {
    return {
      irq: this.irq,
      output: (bytes: Uint8Array) => {
        this.bursts++;
        this.output += Buffer.from(bytes).toString('latin1');
      },
      onInputDrained: () => {
        this.drained++;
      },
    };
  }

  in(register: number): number {
    return this.port.read(register, 1);
  }

  out(register: number, value: number): this {
    this.port.write(register, 1, value);
    return this;
  }

  type(text: string): number {
    return this.port.offerInput(Buffer.from(text, 'latin1'));
  }

  /** Reads as a driver does, while data is ready. */
  drain(): string {
    let text = '';
    while (this.in(LSR) & 1) text += String.fromCharCode(this.in(RBR));
    return text;
  }

  get iir(): number {
    return this.in(IIR);
  }
}

/** As Linux leaves an open port: FIFOs with a trigger level of 8, receive interrupt on. */
const opened = (fcr = 0x81): Bench => new Bench().out(FCR, fcr).out(MCR, MCR_OPEN).out(IER, 0x01);

describe('Serial16550a', () => {
  it('has the power-on values of the data sheet', () => {
    const b = new Bench();
    assert.deepEqual(
      [IER, IIR, LCR, MCR, LSR, MSR & 0xff].map((register) => b.in(register)),
      [0, NONE, 0, 0, 0x60, 0xb0],
    );
    assert.equal(b.irq.sets, 0);
  });

  it('keeps the bits that exist of its plain registers', () => {
    const b = new Bench().out(SCR, 0xa5).out(IER, 0xff).out(MCR, 0xff).out(LCR, 0x5f);
    assert.deepEqual([b.in(SCR), b.in(IER), b.in(MCR), b.in(LCR)], [0xa5, 0x0f, 0x1f, 0x5f]);
    b.out(LSR, 0xff).out(MSR, 0xff);
    assert.equal(b.in(LSR), 0x60);
  });

  it('shows the divisor while DLAB is set', () => {
    const b = new Bench().out(IER, 0x05).out(LCR, 0x83).out(DLL, 0x34).out(DLM, 0x12);
    assert.deepEqual([b.in(DLL), b.in(DLM)], [0x34, 0x12]);
    b.out(LCR, 0x03);
    assert.deepEqual([b.in(IER), b.in(RBR)], [0x05, 0]);
    b.port.flush();
    assert.equal(b.output, '');
  });

  describe('transmitting', () => {
    it('sends bursts, in order, when it is flushed or full', () => {
      const b = new Bench();
      for (const char of 'hello') b.out(THR, char.charCodeAt(0));
      assert.equal(b.bursts, 0);
      b.port.flush();
      b.port.flush();
      assert.deepEqual([b.output, b.bursts], ['hello', 1]);
      b.port.writeBytes(THR, Buffer.alloc(10_000, 'x'), 0, 10_000);
      assert(b.bursts > 1);
      b.port.flush();
      assert.equal(b.output, `hello${'x'.repeat(10_000)}`);
    });

    it('raises THRE when it is enabled, again after each byte, and drops it when IIR is read', () => {
      const b = new Bench().out(MCR, MCR_OPEN);
      b.out(IER, 0x02);
      assert.equal(b.irq.level, true);
      assert.equal(b.iir, 0x02);
      assert.equal(b.irq.level, false);
      assert.equal(b.iir, NONE);
      b.out(THR, 65);
      assert.equal(b.irq.level, true);
      b.out(IER, 0);
      assert.equal(b.irq.level, false);
      b.out(IER, 0x02);
      assert.equal(b.irq.level, true, 'Linux tests that turning it on again raises it again');
    });

    it('makes an edge for every burst, read or not, so that an edge-triggered line misses none', () => {
      const b = new Bench().out(MCR, MCR_OPEN).out(IER, 0x02);
      assert.equal(b.irq.edges, 1);
      b.out(THR, 65);
      assert.equal(b.irq.edges, 2);
      b.port.writeBytes(THR, Buffer.from('0123456789'), 2, 5);
      assert.equal(b.irq.edges, 3);
      b.port.flush();
      assert.equal(b.output, 'A23456');
    });

    it('raises THRE when it becomes enabled, not when it stays enabled', () => {
      const b = new Bench().out(MCR, MCR_OPEN).out(IER, 0x02);
      assert.equal(b.iir, 0x02);
      b.out(IER, 0x03);
      assert.equal(b.iir, NONE);
    });

    it('does not raise THRE unless it is enabled', () => {
      const b = new Bench().out(MCR, MCR_OPEN).out(IER, 0x01).out(THR, 65);
      assert.equal(b.irq.sets, 0);
      assert.equal(b.iir, NONE);
    });
  });

  describe('receiving', () => {
    it('keeps host input until the guest asserts DTR, so that opening the port loses nothing', () => {
      const b = new Bench();
      assert.equal(b.type('early'), 5);
      // Linux does this when it opens the port: it empties the FIFO and reads the rest.
      b.out(FCR, 0x07).out(FCR, 0).in(RBR);
      assert.equal(b.in(LSR) & 1, 0);
      b.out(FCR, 0x81).out(IER, 0x01).out(MCR, MCR_OPEN);
      assert.equal(b.irq.level, true);
      assert.equal(b.drain(), 'early');
      b.out(MCR, 0);
      b.type('closed');
      assert.equal(b.drain(), '');
    });

    it('passes one byte at a time through RBR while the FIFOs are off', () => {
      const b = opened(0);
      b.type('abc');
      assert.equal(b.iir, 0x04);
      assert.equal(b.in(RBR), 97);
      assert.equal(b.drain(), 'bc');
      assert.equal(b.irq.level, false);
    });

    for (const [fcr, trigger] of [
      [0x01, 1],
      [0x41, 4],
      [0x81, 8],
      [0xc1, 14],
    ] as const) {
      it(`reports ${trigger} bytes as data, and fewer as a character timeout`, () => {
        const b = opened(fcr);
        b.type('x'.repeat(trigger));
        assert.equal(b.iir, FIFOS_ON | 0x04);
        b.in(RBR);
        assert.equal(b.iir, FIFOS_ON | (trigger === 1 ? NONE : 0x0c));
        b.drain();
        assert.equal(b.iir, FIFOS_ON | NONE);
        assert.equal(b.irq.level, false);
      });
    }

    it('keeps the line up until all bytes are read, and refills the FIFO', () => {
      const b = opened();
      const text = Array.from({ length: 300 }, (_, i) => String.fromCharCode(i % 256)).join('');
      assert.equal(b.type(text), 300);
      assert.equal(b.irq.edges, 1);
      assert.equal(b.drain(), text);
      assert.equal(b.irq.edges, 1);
      assert.equal(b.irq.level, false);
    });

    it('bounds the input that waits, and reports when it can take more', () => {
      const b = opened();
      const taken = b.port.offerInput(Buffer.alloc(INPUT_QUEUE_BYTES * 2, 'i'));
      assert.equal(taken, INPUT_QUEUE_BYTES);
      assert.equal(b.type('more'), 4, 'the FIFO took some, which made room');
      assert.equal(b.port.offerInput(Buffer.alloc(100)), 12);
      assert.equal(b.drained, 0);
      b.drain();
      assert.equal(b.drained, 1);
      b.type('again');
      b.drain();
      assert.equal(b.drained, 1, 'what fits the FIFO never waited');
    });

    it('reports it also when the last input enters the FIFO without a read', () => {
      const byMcr = new Bench().out(FCR, 0x01);
      byMcr.type('waiting');
      byMcr.out(MCR, MCR_OPEN);
      assert.equal(byMcr.drained, 1);
      const byFcr = opened();
      byFcr.type('x'.repeat(20));
      byFcr.out(FCR, 0x83);
      assert.equal(byFcr.drained, 1);
    });

    it('accepts more input within that call', () => {
      const b = new Bench();
      const rest = ['two', 'three'];
      b.port = new Serial16550a({
        ...b.args(),
        onInputDrained: () => b.type(rest.shift() ?? ''),
      });
      b.type('one');
      b.out(MCR, MCR_OPEN);
      assert.equal(b.drain(), 'onetwothree');
    });

    it('reads 0 when there is no input', () => {
      const b = opened();
      assert.equal(b.in(RBR), 0);
    });

    it('drops the bytes of the FIFO when the guest clears it', () => {
      const b = opened();
      b.type('lost');
      b.out(FCR, 0x83);
      assert.equal(b.in(LSR), 0x60);
      assert.equal(b.irq.level, false);
      b.type('gone');
      b.out(FCR, 0);
      assert.equal(b.drain(), '', 'turning the FIFOs off empties them');
      assert.equal(b.iir, NONE);
    });

    it('ignores the other bits of FCR unless the FIFOs are being enabled', () => {
      const b = opened(0);
      b.type('k');
      b.out(FCR, 0x02 | 0xc0);
      assert.equal(b.drain(), 'k');
    });
  });

  describe('loopback', () => {
    const looped = (fcr: number): Bench => new Bench().out(FCR, fcr).out(MCR, LOOPBACK);

    it('returns sent bytes to the guest only', () => {
      const b = looped(0x01);
      b.port.writeBytes(THR, Buffer.from('loop'), 0, 4);
      assert.equal(b.drain(), 'loop');
      b.port.flush();
      assert.equal(b.output, '');
    });

    it('shows the modem outputs as inputs, as Linux expects', () => {
      const b = new Bench().out(MCR, LOOPBACK | 0x0a);
      assert.equal(b.in(MSR) & 0xf0, 0x90);
      for (const [mcr, msr] of [
        [0x01, 0x20],
        [0x02, 0x10],
        [0x04, 0x40],
        [0x08, 0x80],
      ] as const) {
        assert.equal(b.out(MCR, LOOPBACK | mcr).in(MSR) & 0xf0, msr);
      }
      assert.equal(b.out(MCR, 0).in(MSR) & 0xf0, 0xb0);
      b.out(MCR, LOOPBACK).in(MSR);
      assert.equal(b.in(MSR), 0);
    });

    it('keeps the interrupt line low, because OUT2 is off', () => {
      const b = new Bench().out(IER, 0x0f).out(MCR, LOOPBACK | MCR_OPEN);
      b.out(THR, 1);
      assert.notEqual(b.iir & 1, 1);
      assert.equal(b.irq.level, false);
    });

    it('keeps host input waiting', () => {
      const b = looped(0x01);
      b.out(MCR, LOOPBACK | 1);
      b.type('host');
      assert.equal(b.drain(), '');
      b.out(MCR, 1);
      assert.equal(b.drain(), 'host');
    });

    it('keeps the bytes of a full FIFO, and the newest byte in RBR, on overrun', () => {
      const b = looped(0x01);
      b.port.writeBytes(THR, Buffer.from('0123456789abcdefXY'), 0, 18);
      assert.equal(b.in(LSR), 0x63);
      assert.equal(b.in(LSR), 0x61, 'cleared by reading');
      assert.equal(b.drain(), '0123456789abcdef');
      const rbr = looped(0);
      rbr.out(THR, 1).out(THR, 2);
      assert.equal(rbr.in(LSR), 0x63);
      assert.equal(rbr.in(RBR), 2);
    });

    it('reports changed modem lines, and of RI only its end', () => {
      const b = new Bench().out(MCR, LOOPBACK | 0x0b);
      b.in(MSR);
      assert.equal(b.out(MCR, LOOPBACK | 0x0f).in(MSR), 0xf0, 'RI began');
      assert.equal(b.out(MCR, LOOPBACK | 0x0b).in(MSR), 0xb4, 'RI ended');
      assert.equal(b.in(MSR), 0xb0, 'cleared by reading');
      assert.equal(b.out(MCR, LOOPBACK).in(MSR), 0x0b);
    });
  });

  it('reports interrupts by priority', () => {
    const b = new Bench()
      .out(FCR, 0x01)
      .out(IER, 0x0f)
      .out(MCR, LOOPBACK | 0x02);
    b.in(MSR);
    b.port.writeBytes(THR, Buffer.alloc(17), 0, 17);
    b.out(MCR, LOOPBACK);
    assert.equal(b.iir, FIFOS_ON | 0x06, 'line status');
    b.in(LSR);
    assert.equal(b.iir, FIFOS_ON | 0x04, 'received data');
    for (let i = 0; i < 16; i++) b.in(RBR);
    assert.equal(b.iir, FIFOS_ON | 0x02, 'THR empty');
    assert.equal(b.iir, FIFOS_ON | 0x00, 'modem status');
    b.in(MSR);
    assert.equal(b.iir, FIFOS_ON | NONE);
  });

  it('gates its interrupt by OUT2', () => {
    const b = new Bench().out(IER, 0x02).out(MCR, 0x03);
    assert.equal(b.irq.level, false);
    b.out(MCR, 0x0b);
    assert.equal(b.irq.level, true);
    b.out(MCR, 0x03);
    assert.equal(b.irq.level, false);
  });

  it('sets its line only when the level changes', () => {
    const b = opened();
    b.type('abc');
    b.type('def');
    b.drain();
    b.in(LSR);
    b.in(IIR);
    assert.equal(b.irq.sets, 2);
  });

  it('saves no output: it is sent before', () => {
    const b = new Bench().out(THR, 72).out(THR, 105);
    b.port.save();
    assert.equal(b.output, 'Hi');
  });

  it('saves and restores the host input that waits, up to its bound', () => {
    const b = opened();
    const text = 'w'.repeat(INPUT_QUEUE_BYTES);
    b.type(text);
    const state = JSON.parse(JSON.stringify(b.port.save()));
    const restored = new Bench();
    restored.port = Serial16550a.restore(restored.args(), state);
    assert.equal(restored.irq.level, true);
    assert.equal(restored.drain(), text);
  });

  it('tells when a write of THR does nothing but send', () => {
    const bench = new Bench();
    assert.equal(bench.port.sendsOnly, true);
    for (const [register, value, back] of [
      [LCR, 0x80, 0],
      [MCR, LOOPBACK, 0],
      [IER, 0x02, 0],
    ] as const) {
      bench.out(register, value);
      assert.equal(bench.port.sendsOnly, false, `register ${register}`);
      bench.out(register, back);
      assert.equal(bench.port.sendsOnly, true, `register ${register} again`);
    }
    bench.out(IER, 0x0d);
    assert.equal(bench.port.sendsOnly, true, 'other interrupts do not matter');
  });
});
