import assert from 'node:assert/strict';
import { CmosRtc } from '../../../../src/vmm/devices/cmos-rtc.js';
import { FakeClock } from './fakes.js';

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const CLOCK_CELLS = [0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00];
const [STATUS_A, STATUS_B, STATUS_C, STATUS_D] = [0x0a, 0x0b, 0x0c, 0x0d];
const SET = 0x80;
const BINARY = 0x04;
const HOURS_24 = 0x02;

class Bench {
  readonly clock: FakeClock;
  rtc: CmosRtc;

  constructor(time = '2026-11-23T12:34:56.500Z', lowRamBytes = 256 * MIB, highRamBytes = 0) {
    this.clock = new FakeClock(time);
    this.rtc = new CmosRtc({ clock: this.clock, lowRamBytes, highRamBytes });
  }

  cell(index: number): number {
    this.rtc.write(0, 1, index);
    return this.rtc.read(1, 1);
  }

  store(index: number, value: number): this {
    this.rtc.write(0, 1, index);
    this.rtc.write(1, 1, value);
    return this;
  }

  /** Century, year, month, day, hours, minutes, seconds, as the cells have them. */
  get time(): string {
    return CLOCK_CELLS.map((index) => this.cell(index).toString(16).padStart(2, '0')).join(' ');
  }
}

describe('CmosRtc', () => {
  it('shows the host’s time in BCD, 24 hours', () => {
    const b = new Bench();
    assert.equal(b.time, '20 26 11 23 12 34 56');
    assert.equal(b.cell(0x06), 2, 'Monday');
    b.clock.ms += 3_600_000;
    assert.equal(b.time, '20 26 11 23 13 34 56');
    assert.equal(b.cell(STATUS_B), HOURS_24);
    assert.equal(b.cell(STATUS_D), 0x80);
  });

  it('shows the time in binary or in 12 hours when the guest selects that', () => {
    const b = new Bench('2026-11-23T23:59:58Z').store(STATUS_B, HOURS_24 | BINARY);
    assert.equal(b.time, '14 1a 0b 17 17 3b 3a');
    b.store(STATUS_B, 0);
    assert.equal(b.cell(0x04), 0x91, '11 pm');
    b.clock.ms += 2000;
    assert.equal(b.cell(0x04), 0x12, 'midnight is 12 am');
    b.clock.ms += 12 * 3_600_000;
    assert.equal(b.cell(0x04), 0x92, 'noon is 12 pm');
  });

  it('sets update-in-progress before each second, except while it is stopped', () => {
    const b = new Bench('2026-11-23T12:34:56.998Z');
    assert.equal(b.cell(STATUS_A), 0x26);
    b.clock.ms += 1;
    assert.equal(b.cell(STATUS_A), 0xa6);
    assert.equal(b.store(STATUS_B, SET | HOURS_24).cell(STATUS_A), 0x26);
    b.store(STATUS_B, HOURS_24);
    b.clock.ms += 1;
    assert.equal(b.cell(STATUS_A), 0x26);
    assert.equal(b.cell(0x00), 0x57);
  });

  it('can be set as drivers do: stop, write, start', () => {
    const b = new Bench('2026-02-28T12:00:00Z');
    b.store(STATUS_B, SET | HOURS_24);
    // In an order in which every step on the way would be another date if it were taken for one.
    b.store(0x07, 0x31).store(0x08, 0x12).store(0x09, 0x99).store(0x32, 0x19);
    b.store(0x04, 0x23).store(0x02, 0x59).store(0x00, 0x50);
    b.clock.ms += 60_000;
    assert.equal(b.time, '19 99 12 31 23 59 50', 'stopped');
    b.store(STATUS_B, HOURS_24);
    b.clock.ms += 10_000;
    assert.equal(b.time, '20 00 01 01 00 00 00');
  });

  it('can be set in the selected format, also in 12 hours', () => {
    const b = new Bench().store(STATUS_B, SET | BINARY);
    b.store(0x04, 0x80 | 12).store(0x02, 45);
    assert.equal(b.store(STATUS_B, BINARY | HOURS_24).cell(0x04), 12);
    b.store(STATUS_B, 0).store(0x04, 0x12);
    assert.equal(b.store(STATUS_B, HOURS_24).cell(0x04), 0);
    assert.equal(b.cell(0x02), 0x45);
  });

  it('accepts a field that is written while it runs', () => {
    const b = new Bench().store(0x02, 0x00);
    assert.equal(b.time, '20 26 11 23 12 00 56');
  });

  it('accepts every value in every cell', () => {
    const b = new Bench();
    for (const cell of CLOCK_CELLS) {
      for (let value = 0; value < 256; value++) {
        b.store(cell, value);
        for (const other of CLOCK_CELLS) {
          const shown = b.cell(other);
          assert((shown & 0xf) <= 9 && shown >> 4 <= 9, `cell ${other} shows ${shown.toString(16)}`);
        }
      }
    }
  });

  it('sets update-ended once a second', () => {
    const b = new Bench();
    assert.equal(b.cell(STATUS_C), 0);
    b.clock.ms += 1000;
    assert.equal(b.cell(STATUS_C), 0x10);
    assert.equal(b.cell(STATUS_C), 0, 'cleared by reading');
    b.store(STATUS_B, HOURS_24 | 0x10);
    b.clock.ms += 1000;
    assert.equal(b.cell(STATUS_C), 0x90);
  });

  it('ignores writes of read-only status bits', () => {
    const b = new Bench().store(STATUS_A, 0xff).store(STATUS_C, 0xff).store(STATUS_D, 0).store(0x06, 7);
    assert.deepEqual(
      [STATUS_A, STATUS_C, STATUS_D, 0x06].map((cell) => b.cell(cell)),
      [0x7f, 0, 0x80, 2],
    );
  });

  it('holds the memory sizes', () => {
    const b = new Bench(undefined, 3 * GIB, 2 * GIB + 65536);
    const word = (cell: number) => b.cell(cell) | (b.cell(cell + 1) << 8);
    assert.equal(word(0x15), 639);
    assert.equal(word(0x17), 0xffff);
    assert.equal(word(0x34) * 65536 + 16 * MIB, 3 * GIB);
    assert.equal((word(0x5b) | (b.cell(0x5d) << 16)) * 65536, 2 * GIB + 65536);
    const small = new Bench(undefined, 4 * MIB);
    assert.equal(small.cell(0x30) | (small.cell(0x31) << 8), 3 * 1024);
    assert.equal(small.cell(0x34) | small.cell(0x35), 0);
  });

  it('keeps the bytes in all other cells', () => {
    const b = new Bench().store(0x0e, 0xaa).store(0xff, 0x55);
    assert.deepEqual([b.cell(0x0e), b.cell(0x7f)], [0xaa, 0x55]);
    assert.equal(b.rtc.read(0, 1), 0xff, 'the index cannot be read');
  });

  it('shows the present after a restore, with the offset that the guest set', () => {
    const b = new Bench('2026-11-23T12:00:00Z').store(0x04, 0x15);
    const state = b.rtc.save();
    const later = new Bench('2027-01-01T00:30:00Z');
    later.rtc = CmosRtc.restore({ clock: later.clock, lowRamBytes: 0, highRamBytes: 0 }, state);
    assert.equal(later.time, '20 27 01 01 03 30 00');
    assert.equal(later.cell(0x34), b.cell(0x34), 'its memory is the saved one');
  });

  it('stays behind after a restore that keeps the saved time, also in its next snapshot', () => {
    const b = new Bench();
    const later = new Bench('2026-11-23T13:34:56.500Z');
    later.clock.heldBackMs = 3_600_000;
    later.rtc = CmosRtc.restore({ clock: later.clock, lowRamBytes: 0, highRamBytes: 0 }, b.rtc.save());
    assert.equal(later.time, '20 26 11 23 12 34 56');
    const third = new Bench('2026-11-23T14:34:56.500Z');
    third.rtc = CmosRtc.restore({ clock: third.clock, lowRamBytes: 0, highRamBytes: 0 }, later.rtc.save());
    assert.equal(third.time, '20 26 11 23 13 34 56');
  });

  it('keeps a half-set time across a restore', () => {
    const b = new Bench('2026-02-28T12:00:00Z').store(STATUS_B, SET | HOURS_24).store(0x07, 0x31);
    const later = new Bench('2026-06-01T00:00:00Z');
    later.rtc = CmosRtc.restore({ clock: later.clock, lowRamBytes: 0, highRamBytes: 0 }, b.rtc.save());
    later.store(0x08, 0x12).store(STATUS_B, HOURS_24);
    assert.equal(later.time, '20 26 12 31 12 00 00');
  });
});
