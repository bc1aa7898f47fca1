/**
 * The contract of every device in the list of a machine: it never throws, a value fits the width of the access, and
 * saving and restoring it in the middle of its work changes nothing, interrupt lines included.
 *
 * The accesses are random. LIVESNAP_SEED=N repeats a run.
 */
import assert from 'node:assert/strict';
import { Bus } from '../../../src/vmm/devices/bus.js';
import type { AccessSize, ConsoleDevice, Device, DeviceDescriptor } from '../../../src/vmm/devices/device.js';
import { LEGACY_DEVICES } from '../../../src/vmm/devices/machine-devices.js';
import { Platform } from '../../../src/vmm/devices/platform.js';
import { FakeMachine } from '../../unit/vmm/devices/fakes.js';
import { random } from '../../unit/vmm/seeded-random.js';

/** What the host does to a device now and then, by the device's name. */
const FROM_OUTSIDE: Readonly<Record<string, (device: Device, below: (n: number) => number) => void>> = {
  com1(device, below) {
    const bytes = Buffer.from(Array.from({ length: Math.floor(below(40)) }, () => Math.floor(below(256))));
    (device as ConsoleDevice).offerInput(bytes);
  },
  pm(device) {
    device.pressPowerButton!();
  },
};

const SIZES: readonly AccessSize[] = [1, 2, 4];
const BASE = 0x1000;
const seed = Number(process.env.LIVESNAP_SEED ?? Date.now() % 1_000_000);

/** A device alone on a bus, with a fake machine. */
class Bench {
  readonly bus = new Bus();
  readonly device: Device;
  readonly machine: FakeMachine;

  constructor(make: (machine: FakeMachine) => Device, machine = new FakeMachine()) {
    this.machine = machine;
    this.device = make(machine);
    this.bus.attach(BASE, this.device);
  }

  get levels(): [number, boolean][] {
    return [...this.machine.irqs].map(([irq, line]) => [irq, line.level]);
  }
}

/** Makes one random access, and returns the value read, or null for a write. */
function step({ bus, device }: Bench, below: (n: number) => number): number | null {
  const { offset, length } = device.ranges[Math.floor(below(device.ranges.length))]!;
  const address = BASE + offset + Math.floor(below(length + 2)) - 1;
  const size = SIZES[Math.floor(below(3))]!;
  const items = new Uint8Array(64);
  switch (Math.floor(below(6))) {
    case 0:
      for (let i = 0; i < items.length; i++) items[i] = below(256);
      bus.writeItems(address, size, Math.floor(below(64 / size + 1)), items, 0);
      return null;
    case 1:
      bus.readItems(address, size, Math.floor(below(64 / size + 1)), items, 0);
      return items.reduce((sum, byte) => (sum * 31 + byte) % 2 ** 32, 0);
    case 2:
    case 3:
      bus.write(address, size, Math.floor(below(2 ** 32)));
      return null;
    default: {
      const value = bus.read(address, size);
      assert(
        Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size),
        `read ${value} of ${size} bytes`,
      );
      return value;
    }
  }
}

/** Makes `count` accesses that `stepSeed` determines, and returns the values read, in order. */
function work(bench: Bench, subject: DeviceDescriptor, stepSeed: number, count: number): (number | null)[] {
  const below = random(stepSeed);
  return Array.from({ length: count }, () => {
    if (below(8) < 1) FROM_OUTSIDE[subject.name]?.(bench.device, below);
    if (below(8) < 1) bench.machine.clock.ms += Math.floor(below(3000));
    return step(bench, below);
  });
}

for (const subject of LEGACY_DEVICES) {
  describe(`the device ${subject.name} (LIVESNAP_SEED=${seed})`, () => {
    it('accepts every value at every address in every size', () => {
      for (const size of SIZES) {
        const { bus, device } = new Bench(subject.create);
        for (const { offset, length } of device.ranges) {
          for (let address = BASE + offset - 3; address <= BASE + offset + length; address++) {
            for (let value = 0; value < 256; value++) {
              bus.write(address, size, (value * 0x01010101) >>> 0);
              const got = bus.read(address, size);
              assert(got >= 0 && got < 2 ** (8 * size));
            }
          }
        }
      }
    });

    it('never throws, whatever the guest does', () => {
      const bench = new Bench(subject.create);
      work(bench, subject, seed, 20_000);
    });

    it('continues unchanged after save and restore', () => {
      for (let round = 0; round < 200; round++) {
        const original = new Bench(subject.create);
        work(original, subject, seed + round, round);
        const state = JSON.parse(JSON.stringify(original.device.save()));
        const machine = new FakeMachine();
        machine.clock.ms = original.machine.clock.ms;
        const restored = new Bench((around) => subject.restore(around, subject.state(state, '')), machine);
        assert.deepEqual(restored.device.save(), state, 'the state of the restored device');
        assert.deepEqual(restored.levels, original.levels, 'the levels of its lines');
        original.machine.console = '';
        original.machine.events.length = 0;
        const after = seed + 1000 + round;
        assert.deepEqual(work(restored, subject, after, 100), work(original, subject, after, 100));
        assert.deepEqual(restored.levels, original.levels);
        assert.deepEqual(restored.machine.events, original.machine.events);
        assert.deepEqual(restored.device.save(), original.device.save());
        assert.equal(restored.machine.console, original.machine.console);
      }
    });

    it('does not change by being saved', () => {
      const [saved, unsaved] = [new Bench(subject.create), new Bench(subject.create)];
      const observed = Array.from({ length: 100 }, (_, round) => {
        saved.device.save();
        return work(saved, subject, seed + round, 20);
      });
      const expected = Array.from({ length: 100 }, (_, round) => work(unsaved, subject, seed + round, 20));
      assert.deepEqual(observed, expected);
    });
  });
}

describe(`the console’s input (LIVESNAP_SEED=${seed})`, () => {
  it('reaches the guest whole and in order, whatever it does to the port but read data', () => {
    const [data, ier, fcr, lcr, mcr, lsr] = [0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd];
    for (let round = 0; round < 100; round++) {
      const below = random(seed + round);
      const machine = new FakeMachine();
      let platform = Platform.create(machine, LEGACY_DEVICES);
      let sent = '';
      for (let i = 0; i < 200; i++) {
        const value = Math.floor(below(256));
        const step = Math.floor(below(9));
        if (step < 5) platform.pio.write([ier, fcr, lcr, mcr, fcr][step]!, 1, value);
        else if (step === 5) for (let n = 0; n < value % 12; n++) platform.pio.read(lsr, 1);
        else if (step === 6) {
          const state = JSON.parse(JSON.stringify(platform.save()));
          platform = Platform.restore(machine, state, LEGACY_DEVICES);
        } else {
          const text = String.fromCharCode(...Array.from({ length: value }, (_, n) => 33 + ((i + n) % 90)));
          sent += text.slice(0, platform.console.offerInput(Buffer.from(text)));
        }
      }
      for (const [register, value] of [
        [lcr, 0x03],
        [fcr, 0x01],
        [mcr, 0x0b],
        [ier, 0x01],
      ] as const)
        platform.pio.write(register, 1, value);
      let got = '';
      while (platform.pio.read(lsr, 1) & 1) got += String.fromCharCode(platform.pio.read(data, 1));
      assert.equal(got, sent, `round ${round}`);
    }
  });
});

describe(`the platform (LIVESNAP_SEED=${seed})`, () => {
  it('accepts any access at any port', () => {
    const { pio, mmio } = Platform.create(new FakeMachine(), LEGACY_DEVICES);
    const below = random(seed);
    const data = new Uint8Array(64);
    for (let port = 0; port < 0x1_0000; port++) {
      for (const size of SIZES) {
        pio.write(port, size, Math.floor(below(2 ** 32)));
        const value = pio.read(port, size);
        assert(value >= 0 && value < 2 ** (8 * size));
        pio.writeItems(port, size, 16, data, 0);
        pio.readItems(port, size, 16, data, 0);
      }
    }
    for (let round = 0; round < 10_000; round++) {
      const gpa = Math.floor(below(2 ** 46));
      const size = 1 + Math.floor(below(8));
      mmio.writeItems(gpa, size, 1, data, 0);
      data.fill(0);
      mmio.readItems(gpa, size, 1, data, 0);
      assert.deepEqual(
        [...data.subarray(0, 9)],
        [...new Array(size).fill(0xff), ...new Array(9 - size).fill(0)],
      );
    }
  });

  it('continues after save and restore in the middle of the devices’ work', () => {
    const machine = new FakeMachine();
    const platform = Platform.create(machine, LEGACY_DEVICES);
    platform.pio.write(0x3fa, 1, 0xc1);
    platform.pio.write(0x3fc, 1, 0x0b);
    platform.pio.write(0x3f9, 1, 0x03);
    platform.console.offerInput(Buffer.from('half a line'));
    platform.pio.write(0x64, 1, 0x60);
    platform.pio.write(0x70, 1, 0x02);

    const around = new FakeMachine();
    const { pio } = Platform.restore(around, JSON.parse(JSON.stringify(platform.save())), LEGACY_DEVICES);
    assert.equal(around.irqLine(4).level, true, 'the serial interrupt is raised again');
    assert.equal(pio.read(0x3fa, 1), 0xcc);
    assert.equal(String.fromCharCode(pio.read(0x3f8, 1), pio.read(0x3f8, 1)), 'ha');
    pio.write(0x60, 1, 0x45);
    pio.write(0x64, 1, 0x20);
    assert.equal(pio.read(0x60, 1), 0x45, 'the command byte that was about to be written');
    assert.equal(pio.read(0x71, 1), 0x34, 'the cell that was selected');
  });
});
