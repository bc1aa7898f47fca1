import assert from 'node:assert/strict';
import { AcpiPm } from '../../../../src/vmm/devices/acpi-pm.js';
import { Bus } from '../../../../src/vmm/devices/bus.js';

const [STATUS, ENABLE, CONTROL] = [0x600, 0x602, 0x604];
const SCI_EN = 0x0001;
const SLP_EN = 0x2000;
const sleepType = (type: number) => type << 10;

/** The registers as a guest has them, words on the bus. */
class Bench {
  readonly bus = new Bus();
  powerOffs = 0;

  constructor() {
    const onPowerOff = () => {
      this.powerOffs++;
    };
    this.bus.attach(0x600, new AcpiPm({ onPowerOff }));
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

  it('has no events, and keeps the enable bits', () => {
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

  it('ignores other sleep states', () => {
    for (const type of [0, 1, 2, 3, 4, 6, 7])
      assert.equal(new Bench().control(sleepType(type) | SLP_EN).powerOffs, 0);
  });
});
