import assert from 'node:assert/strict';
import { AcpiPm, type AcpiPmState, powerManagement } from '../../../../src/vmm/devices/acpi-pm.js';
import { Bus } from '../../../../src/vmm/devices/bus.js';
import { FakeIrq } from './fakes.js';

const [STATUS, ENABLE, CONTROL] = [0x600, 0x602, 0x604];
const SCI_EN = 0x0001;
const SLP_EN = 0x2000;
const PWRBTN = 0x0100;
const sleepType = (type: number) => type << 10;

/** The registers as a guest has them, words on the bus. */
class Bench {
  readonly bus = new Bus();
  readonly sci = new FakeIrq();
  readonly pm: AcpiPm;
  powerOffs = 0;

  constructor(saved?: AcpiPmState) {
    const onPowerOff = () => {
      this.powerOffs++;
    };
    const args = { sci: this.sci, onPowerOff };
    this.pm = saved === undefined ? new AcpiPm(args) : AcpiPm.restore(args, saved);
    this.bus.attach(0x600, this.pm);
  }

  control(value: number): this {
    this.bus.write(CONTROL, 2, value);
    return this;
  }
}

describe('AcpiPm', () => {
  it('is always in ACPI mode', () => {
    const { bus } = new Bench();
    assert.equal(bus.read(CONTROL, 2), SCI_EN);
    bus.write(CONTROL, 2, 0);
    assert.equal(bus.read(CONTROL, 2), SCI_EN);
  });

  it('has no other events than the power button, and keeps the enable bits', () => {
    const { bus } = new Bench();
    bus.write(STATUS, 2, 0xffff);
    assert.equal(bus.read(STATUS, 2), 0);
    bus.write(ENABLE, 2, 0xffff);
    assert.equal(bus.read(ENABLE, 2), 0x0721);
    assert.equal(bus.read(STATUS, 4), 0x0721_0000);
  });

  it('turns the machine off for S5, in one write or in two as ACPICA does', () => {
    assert.equal(new Bench().control(sleepType(5) | SLP_EN).powerOffs, 1);
    const b = new Bench().control(SCI_EN | sleepType(5));
    assert.equal(b.powerOffs, 0);
    assert.equal(b.bus.read(CONTROL, 2), SCI_EN | sleepType(5));
    b.control(SCI_EN | sleepType(5) | SLP_EN);
    assert.equal(b.powerOffs, 1);
    assert.equal(b.bus.read(CONTROL, 2) & SLP_EN, 0);
  });

  it('presses the power button only if the guest has enabled it', () => {
    const b = new Bench();
    assert.equal(b.pm.pressPowerButton(), false);
    b.bus.write(ENABLE, 2, 0xffff & ~PWRBTN);
    assert.equal(b.pm.pressPowerButton(), false);
    assert.deepEqual([b.bus.read(STATUS, 2), b.sci.sets], [0, 0]);
    b.bus.write(ENABLE, 2, PWRBTN);
    assert.equal(b.pm.pressPowerButton(), true);
    assert.deepEqual([b.bus.read(STATUS, 2), b.sci.level], [PWRBTN, true]);
  });

  it('holds the SCI until the status is cleared by writing 1, or the event is disabled', () => {
    const b = new Bench();
    b.bus.write(ENABLE, 2, PWRBTN);
    b.pm.pressPowerButton();
    b.bus.write(STATUS, 2, 0xffff & ~PWRBTN);
    assert.deepEqual([b.bus.read(STATUS, 2), b.sci.level], [PWRBTN, true], 'writing 0 clears nothing');
    b.bus.write(ENABLE, 2, 0);
    assert.deepEqual([b.bus.read(STATUS, 2), b.sci.level], [PWRBTN, false]);
    b.bus.write(ENABLE, 2, PWRBTN);
    assert.equal(b.sci.level, true);
    b.bus.write(STATUS, 2, PWRBTN);
    assert.deepEqual([b.bus.read(STATUS, 2), b.sci.level], [0, false]);
    b.pm.pressPowerButton();
    assert.deepEqual([b.sci.level, b.sci.edges], [true, 3]);
  });

  it('is restored with a pressed button, and from a state without events', () => {
    const b = new Bench();
    b.bus.write(ENABLE, 2, PWRBTN);
    b.pm.pressPowerButton();
    const restored = new Bench(b.pm.save());
    assert.deepEqual([restored.bus.read(STATUS, 2), restored.sci.level], [PWRBTN, true]);
    const { statusHigh: _, ...old } = { ...b.pm.save(), version: 1 };
    assert.equal(new Bench(powerManagement.state(old, '') as AcpiPmState).sci.level, false);
    for (const wrong of [
      { ...old, version: 2 },
      { ...old, statusHigh: 1 },
      { ...b.pm.save(), statusHigh: 3 },
    ])
      assert.throws(() => powerManagement.state(wrong, ''), /statusHigh/);
    assert.throws(
      () => powerManagement.state({ ...old, version: 3 }, ''),
      /is 3; this livesnap reads version 2/,
    );
  });

  it('ignores other sleep states', () => {
    for (const type of [0, 1, 2, 3, 4, 6, 7])
      assert.equal(new Bench().control(sleepType(type) | SLP_EN).powerOffs, 0);
  });
});
