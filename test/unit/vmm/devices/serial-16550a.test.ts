import assert from 'node:assert/strict';
import { com1, INPUT_QUEUE_BYTES, Serial16550a } from '../../../../src/vmm/devices/serial-16550a.js';
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

/** A port that was restored from the state of another, as it is checked when a snapshot is read. */
const restore = (from: Bench): Bench => {
  const restored = new Bench();
  const state = com1.state(JSON.parse(JSON.stringify(from.port.save())), 'com1');
  restored.port = Serial16550a.restore(restored.args(), state);
  return restored;
};

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
    it('keeps host input until the guest asserts DTR and takes receive interrupts', () => {
      const b = new Bench();
      assert.equal(b.type('early'), 5);
      b.out(FCR, 0x81).out(IER, 0x01);
      assert.equal(b.drain(), '', 'no DTR');
      b.out(IER, 0).out(MCR, MCR_OPEN);
      assert.equal(b.drain(), '', 'no interrupt');
      b.out(IER, 0x01);
      assert.equal(b.irq.level, true);
      assert.equal(b.drain(), 'early');
      b.out(MCR, 0);
      b.type('closed');
      assert.equal(b.drain(), '');
    });

    it('loses no byte of what is typed while Linux boots', () => {
      const b = new Bench();
      const typed = 'echo typed while the machine boots\n';
      b.type(typed);
      // The early console: DTR is on from here.
      b.out(IER, 0).out(LCR, 0x93).out(DLL, 12).out(DLM, 0).out(LCR, 0x13).out(FCR, 0).out(MCR, 1);
      // The driver looks for the type of the port, and reads RBR without a look at LSR.
      b.out(IER, 0).out(IER, 0x0f).out(IER, 0).out(LCR, 0xbf).out(FCR, 0).out(LCR, 0).out(FCR, 1);
      assert.equal(b.iir, FIFOS_ON | NONE);
      b.out(LCR, 0x13).out(MCR, 1).out(FCR, 1).out(FCR, 7).out(FCR, 0);
      assert.equal(b.in(RBR), 0);
      b.out(IER, 0).out(MCR, 1);
      // The first process opens the console.
      b.out(FCR, 1).out(FCR, 7).out(FCR, 0);
      for (const register of [LSR, RBR, IIR, MSR]) b.in(register);
      b.out(IER, 2).in(IIR);
      b.out(IER, 0).out(LCR, 3).out(MCR, 9).out(IER, 2).in(IIR);
      b.out(IER, 0);
      for (const register of [LSR, RBR, IIR, MSR]) b.in(register);
      b.out(IER, 5).out(LCR, 0x93).out(DLL, 12).out(DLM, 0).out(LCR, 0x13);
      b.out(FCR, 1).out(FCR, 0x81).out(MCR, 9).out(MCR, MCR_OPEN);
      assert.equal(b.irq.level, true);
      assert.equal(b.drain(), typed);
      // The last process closes it, and another one opens it.
      b.type('again');
      b.out(IER, 0).out(FCR, 1).out(FCR, 7).out(FCR, 0);
      assert.equal(b.in(RBR), 0);
      b.out(IER, 5).out(FCR, 0x81);
      assert.equal(b.drain(), 'again');
    });

    it('passes input to a guest that polls LSR without interrupts, until it resets the FIFO', () => {
      const b = new Bench().out(FCR, 0x01).out(MCR, 0x03);
      const poll = (): string => {
        for (let i = 0; i < 8; i++) {
          const text = b.drain();
          if (text !== '') return text;
        }
        return '';
      };
      b.type('polled');
      assert.equal(b.in(LSR) & 1, 0, 'one look is no polling');
      assert.equal(poll(), 'polled');
      b.type('at once');
      assert.equal(b.drain(), 'at once');
      b.out(FCR, 0x03);
      b.type('next driver');
      assert.equal(b.drain(), '');
      assert.equal(poll(), 'next driver');
    });

    it('knows a guest that polls also after a restore', () => {
      const b = new Bench().out(MCR, 0x03);
      for (let i = 0; i < 7; i++) b.in(LSR);
      b.type('ab');
      const halfWay = restore(b);
      assert.equal(halfWay.in(LSR) & 1, 1);
      assert.equal(restore(halfWay).drain(), 'ab');
    });

    for (const [title, send] of [
      ['bytes', (b: Bench) => b.out(THR, 46)],
      ['strings', (b: Bench) => b.port.writeBytes(THR, Buffer.from('..'), 0, 2)],
    ] as const) {
      it(`does not take a guest that looks at LSR before it sends ${title} for one that polls`, () => {
        const b = new Bench().out(FCR, 0x01).out(MCR, 0x03);
        b.type('kept');
        for (let i = 0; i < 100; i++) {
          assert.deepEqual([b.in(LSR) & 1, b.in(LSR) & 1], [0, 0]);
          send(b);
        }
        assert.equal(b.in(RBR), 0);
        assert.equal(b.out(IER, 1).drain(), 'kept');
      });
    }

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
      assert.equal(b.type('more'), 0, 'what is in the FIFO counts, since it may come back');
      b.in(RBR);
      assert.equal(b.type('more'), 1);
      assert.equal(b.drained, 0);
      b.drain();
      assert.equal(b.drained, 1);
      b.type('again');
      b.drain();
      assert.equal(b.drained, 1, 'what fits the FIFO never waited');
    });

    it('reports it also when the last input enters the FIFO without a read', () => {
      const byMcr = new Bench().out(FCR, 0x01).out(IER, 0x01);
      byMcr.type('waiting');
      byMcr.out(MCR, MCR_OPEN);
      assert.equal(byMcr.drained, 1);
      const byIer = new Bench().out(FCR, 0x01).out(MCR, MCR_OPEN);
      byIer.type('waiting');
      byIer.out(IER, 0x01);
      assert.equal(byIer.drained, 1);
      const byFcr = opened(0);
      byFcr.type('x'.repeat(16));
      byFcr.out(FCR, 0x01);
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
      b.out(IER, 0x01).out(MCR, MCR_OPEN);
      assert.equal(b.drain(), 'onetwothree');
    });

    it('reads 0 when there is no input', () => {
      const b = opened();
      assert.equal(b.in(RBR), 0);
    });

    for (const [title, fcr] of [
      ['clears the FIFO', [0x83]],
      ['turns the FIFOs off', [0x00]],
      ['turns the FIFOs off and on', [0x00, 0x81]],
    ] as const) {
      it(`keeps host input that the guest has not read, in order, when it ${title}`, () => {
        const b = opened();
        const text = 'abcdefghijklmnopqrstuvwxyz';
        b.type(text);
        assert.equal(b.in(RBR), 97);
        for (const value of fcr) b.out(FCR, value);
        b.type('!');
        assert.equal(b.irq.level, true);
        assert.equal(b.drain(), `${text.slice(1)}!`);
      });
    }

    it('keeps a full queue of input through a reset of the FIFO and a restore', () => {
      const b = opened();
      const text = Array.from({ length: INPUT_QUEUE_BYTES }, (_, i) => String.fromCharCode(i % 251)).join('');
      assert.equal(b.type(text), INPUT_QUEUE_BYTES);
      b.out(IER, 0).out(FCR, 0x83);
      assert.equal(b.in(RBR), 0);
      const restored = restore(b);
      assert.equal(restored.out(IER, 1).drain(), text);
    });

    it('keeps the input of a state of version 1, which had a full FIFO and a full queue', () => {
      const { loopedBytes: _, polls: __, polled: ___, ...common } = opened().port.save();
      const old = {
        ...common,
        version: 1,
        fifo: Buffer.alloc(16, 'f').toString('base64'),
        input: Buffer.alloc(INPUT_QUEUE_BYTES, 'i').toString('base64'),
      };
      const b = new Bench();
      b.port = Serial16550a.restore(b.args(), com1.state(old, ''));
      assert.equal(b.irq.level, true);
      assert.equal(b.type('x'), 0);
      b.out(IER, 0).out(FCR, 0x83);
      assert.equal(b.type('x'), 0);
      assert.equal(restore(b).out(IER, 1).drain(), 'f'.repeat(16) + 'i'.repeat(INPUT_QUEUE_BYTES));
    });

    it('refuses a state whose parts contradict each other', () => {
      const state = opened().port.save();
      const base64 = (bytes: number): string => Buffer.alloc(bytes).toString('base64');
      for (const wrong of [
        { fifo: base64(2), loopedBytes: 3 },
        { fifo: base64(16), input: base64(INPUT_QUEUE_BYTES + 1) },
      ])
        assert.throws(() => com1.state({ ...state, ...wrong }, ''), /do not fit together/);
      com1.state({ ...state, fifo: base64(16), loopedBytes: 1, input: base64(INPUT_QUEUE_BYTES + 1) }, '');
      assert.throws(() => com1.state({ ...state, polls: 8 }, ''), /polls/);
      assert.throws(() => com1.state({ ...state, version: 1 }, ''), /loopedBytes/);
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
      const b = looped(0x01).out(IER, 0x01);
      b.out(MCR, LOOPBACK | 1);
      b.type('host');
      assert.equal(b.drain(), '');
      b.out(MCR, 1);
      assert.equal(b.drain(), 'host');
    });

    it('returns unread host input after it, and only the bytes that were looped are cleared', () => {
      const b = opened(0x01);
      b.type('host input, more than the FIFO holds');
      b.out(MCR, LOOPBACK | MCR_OPEN);
      assert.equal(b.in(LSR) & 1, 0);
      b.port.writeBytes(THR, Buffer.from('loop'), 0, 4);
      assert.equal(b.in(RBR), 108);
      b.out(MCR, MCR_OPEN).out(FCR, 0x03);
      assert.equal(b.drain(), 'host input, more than the FIFO holds');
    });

    it('leaves bytes that were looped readable after it, before host input', () => {
      const b = opened(0x01).out(MCR, LOOPBACK | MCR_OPEN);
      b.port.writeBytes(THR, Buffer.from('loop'), 0, 4);
      b.type('host');
      assert.equal(b.out(MCR, MCR_OPEN).drain(), 'loophost');
    });

    it('drops the bytes that were looped when the guest clears the FIFO, also after a restore', () => {
      const b = looped(0x01);
      b.port.writeBytes(THR, Buffer.from('loop'), 0, 4);
      const restored = restore(b);
      assert.equal(b.out(FCR, 0x03).drain(), '');
      assert.equal(restored.out(FCR, 0x03).drain(), '');
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
    const restored = restore(b);
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
