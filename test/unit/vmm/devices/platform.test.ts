import assert from 'node:assert/strict';
import { integer } from '../../../../src/schema.js';
import type {
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
} from '../../../../src/vmm/devices/device.js';
import { deviceState } from '../../../../src/vmm/devices/device-state.js';
import { type DeviceList, LEGACY_DEVICES } from '../../../../src/vmm/devices/machine-devices.js';
import { Platform, type PlatformState } from '../../../../src/vmm/devices/platform.js';
import { FakeMachine } from './fakes.js';

type Loose = { version: unknown; devices: Record<string, Record<string, unknown>> };

/** A saved state that a test may damage. */
const savedState = (): Loose =>
  JSON.parse(JSON.stringify(Platform.create(new FakeMachine(), LEGACY_DEVICES).save()));

/** A state that livesnap 0.1 saved while its devices were in the middle of their work. */
const SAVED_BY_0_1 = {
  version: 1,
  devices: {
    com1: {
      device: 'serial-16550a',
      version: 1,
      ier: 3,
      fcr: 193,
      lcr: 0,
      mcr: 11,
      lineErrors: 0,
      modemDeltas: 0,
      scratch: 0,
      divisorLow: 12,
      divisorHigh: 0,
      thrEmptyPending: true,
      fifo: 'aGFsZiBhIGxpbmU=',
      input: '',
    },
    keyboard: {
      device: 'i8042',
      version: 1,
      status: 28,
      commandByte: 20,
      output: 0,
      outputPort: 3,
      awaiting: 96,
    },
    rtc: {
      device: 'cmos-rtc',
      version: 1,
      index: 2,
      cells: `${'A'.repeat(28)}fwL//wAAA${'A'.repeat(29)}//8AAAAP${'A'.repeat(97)}=`,
      statusA: 38,
      statusB: 2,
      offsetSeconds: 0,
      fields: 'AAAAAAAAAA==',
      seenSecond: 1795437296,
    },
    pm: {
      device: 'acpi-pm',
      version: 1,
      enableLow: 32,
      enableHigh: 1,
      controlLow: 1,
      controlHigh: 0,
    },
  },
};

const refused = (state: unknown, message: RegExp): void => {
  assert.throws(() => Platform.restore(new FakeMachine(), state, LEGACY_DEVICES), {
    code: 'BAD_STATE',
    message,
  });
};

describe('Platform', () => {
  it('has its devices where a PC has them', () => {
    const machine = new FakeMachine();
    const { pio } = Platform.create(machine, LEGACY_DEVICES);
    assert.equal(pio.read(0x3fd, 1), 0x60, 'the serial port’s LSR');
    assert.equal(pio.read(0x64, 1), 0x14, 'the keyboard controller’s status');
    pio.write(0x70, 1, 0x04);
    assert.equal(pio.read(0x71, 1), 0x12, 'the clock’s hour');
    assert.equal(pio.read(0x604, 2), 1, 'PM1a control');
    for (const port of [0x5f, 0x61, 0x63, 0x65, 0x72, 0x80, 0x3f7, 0x400, 0x5ff, 0x606])
      assert.equal(pio.read(port, 1), 0xff);
  });

  it('reports reset, power-off and console output to the machine', () => {
    const machine = new FakeMachine();
    const platform = Platform.create(machine, LEGACY_DEVICES);
    platform.pio.write(0x64, 1, 0xfe);
    platform.pio.write(0x604, 2, 0x3400);
    platform.pio.writeItems(0x3f8, 1, 5, Buffer.from('Linux'), 0);
    platform.flush();
    assert.deepEqual(machine.events, ['reset', 'powerOff']);
    assert.equal(machine.console, 'Linux');
  });

  it('raises interrupt 4 for console input, and asks for more when the guest has read it', () => {
    const machine = new FakeMachine();
    const { pio, console } = Platform.create(machine, LEGACY_DEVICES);
    pio.write(0x3fc, 1, 0x0b);
    pio.write(0x3f9, 1, 1);
    assert.equal(console.offerInput(Buffer.from('xy')), 2);
    assert.equal(machine.irqLine(4).level, true);
    assert.equal(machine.irqLine(1).level, false);
    assert.equal(pio.read(0x3f8, 1), 'x'.charCodeAt(0));
    assert.deepEqual(machine.events, ['drained']);
  });

  it('pauses all devices that have work, and is idle when each of them is', () => {
    const calls: string[] = [];
    const idle = { first: true, second: false };
    const worker = (name: keyof typeof idle, base: number): DeviceDescriptor => ({
      name,
      bus: 'mmio',
      base,
      state: deviceState(name, 1, {}),
      create: () => ({
        ranges: [{ offset: 0, length: 4 }],
        widthBytes: 4,
        read: () => 0,
        write: () => {},
        save: () => ({ device: name, version: 1 }),
        pausable: {
          get isIdle() {
            return idle[name];
          },
          suspend: () => calls.push(`suspend ${name}`),
          freeze: () => calls.push(`freeze ${name}`),
          resume: () => calls.push(`resume ${name}`),
        },
      }),
      restore: () => assert.fail(),
    });
    const list: DeviceList = [...LEGACY_DEVICES, worker('first', 0), worker('second', 4)];
    const platform = Platform.create(new FakeMachine(), list);
    assert.equal(platform.isIdle, false);
    idle.second = true;
    assert.equal(platform.isIdle, true);
    platform.suspend();
    platform.freeze();
    platform.resume();
    assert.deepEqual(calls, [
      'suspend first',
      'suspend second',
      'freeze first',
      'freeze second',
      'resume first',
      'resume second',
    ]);
  });

  it('saves a plain object with a state for each device', () => {
    const state: PlatformState = Platform.create(new FakeMachine(), LEGACY_DEVICES).save();
    assert.deepEqual(JSON.parse(JSON.stringify(state)), state);
    assert.deepEqual(Object.keys(state.devices).sort(), ['com1', 'keyboard', 'pm', 'rtc']);
  });

  it('restores the devices that livesnap 0.1 saved', () => {
    const machine = new FakeMachine();
    const platform = Platform.restore(machine, SAVED_BY_0_1, LEGACY_DEVICES);
    const { devices } = SAVED_BY_0_1;
    // Version 1 of the power management had no events.
    const pm = { ...devices.pm, version: 2, statusHigh: 0 };
    // Version 1 of the serial port did not tell who polls, nor which bytes were looped.
    const com1 = { ...devices.com1, version: 2, loopedBytes: 0, polls: 0, polled: false };
    assert.deepEqual(platform.save(), { ...SAVED_BY_0_1, devices: { ...devices, com1, pm } });
    assert.equal(machine.irqLine(4).level, true);
  });

  it('refuses to restore anything but the states of its devices', () => {
    for (const state of [null, undefined, 7, 'state', []])
      refused(state, /the value is (not an object|missing)/);
    refused({}, /version is missing/);
    refused({ version: 1 }, /devices is missing/);
    refused({ version: 1, devices: [] }, /devices is not an object/);
    const { devices } = savedState();
    for (const name of Object.keys(devices)) {
      const without = savedState();
      delete without.devices[name];
      refused(without, new RegExp(`devices\\.${name} is missing`));
    }
    const more = savedState();
    more.devices.net0 = { device: 'virtio-net', version: 1 };
    refused(more, /devices\."net0" is not a known field/);
    const swapped = savedState();
    swapped.devices.pm = swapped.devices.keyboard!;
    refused(swapped, /devices\.pm\.device is not acpi-pm/);
  });

  it('names both versions when the saved one is unknown', () => {
    const newer = savedState();
    newer.version = 2;
    refused(newer, /: version is 2; this livesnap reads version 1/);
    for (const name of Object.keys(newer.devices)) {
      const state = savedState();
      const version = Number(state.devices[name]!.version);
      state.devices[name]!.version = version + 1;
      refused(
        state,
        new RegExp(`devices\\.${name}\\.version is ${version + 1}; this livesnap reads version ${version}`),
      );
    }
  });

  it('refuses every field that is missing, unknown, or of another type or size', () => {
    for (const [name, device] of Object.entries(savedState().devices)) {
      const withField = (field: string, value: unknown): Loose => {
        const state = savedState();
        state.devices[name]![field] = value;
        return state;
      };
      refused(withField('surprise', 0), /"surprise" is not a known field/);
      for (const [field, value] of Object.entries(device)) {
        const path = `devices\\.${name}\\.${field}`;
        const missing = savedState();
        delete missing.devices[name]![field];
        refused(missing, new RegExp(`${path} is missing`));
        const wrong =
          typeof value === 'number'
            ? [-1e17, 0.5, Number.NaN, 1e17, 2 ** 53, '1', null, true, [], {}]
            : typeof value === 'string'
              ? ['no base64!', Buffer.alloc(5000).toString('base64'), 'QQ', 'QR==', 1, null, []]
              : [0, 1, 'true', null];
        for (const bad of wrong) refused(withField(field, bad), new RegExp(`${path} is not`));
      }
    }
  });

  it('restores no device when the state of any is wrong', () => {
    const state = savedState();
    delete state.devices.pm!.enableLow;
    const machine = new FakeMachine();
    assert.throws(() => Platform.restore(machine, state, LEGACY_DEVICES), { code: 'BAD_STATE' });
    assert.equal(machine.irqs.size, 0, 'no interrupt line was asked for');
  });
});

/** A device with one register, of which a machine may have several, in the MMIO hole. */
interface CounterState extends DeviceState {
  readonly count: number;
}

const counter = (name: string, base: number, gsi: number): DeviceDescriptor<Device, CounterState> => {
  const make = (parts: DeviceParts, start: number): Device => {
    let count = start;
    const irq = parts.irqLine(gsi);
    return {
      ranges: [{ offset: 0, length: 0x1000 }],
      widthBytes: 4,
      read: () => count,
      write: (_offset, _size, value) => {
        count = value;
        irq.set(value > 0);
      },
      save: () => ({ device: 'counter', version: 1, count }) as CounterState,
    };
  };
  return {
    name,
    bus: 'mmio',
    base,
    state: deviceState<CounterState>('counter', 1, { count: integer() }),
    create: (parts) => make(parts, 0),
    restore: (parts, { count }) => make(parts, count),
  };
};

describe('Platform with more devices', () => {
  const devices: DeviceList = [
    ...LEGACY_DEVICES,
    counter('counter0', 0xd000_0000, 5),
    counter('counter1', 0xd000_1000, 10),
  ];

  it('has several devices of one kind at MMIO addresses, each with its own interrupt and state', () => {
    const machine = new FakeMachine();
    const platform = Platform.create(machine, devices);
    platform.mmio.write(0xd000_1000, 4, 7);
    assert.equal(platform.mmio.read(0xd000_0000, 4), 0);
    assert.equal(machine.irqLine(5).level, false);
    assert.equal(machine.irqLine(10).level, true);

    const state = JSON.parse(JSON.stringify(platform.save()));
    const { mmio } = Platform.restore(new FakeMachine(), state, devices);
    assert.equal(mmio.read(0xd000_0000, 4), 0);
    assert.equal(mmio.read(0xd000_1000, 4), 7);
  });

  it('refuses the state of a machine with other devices', () => {
    refused(JSON.parse(JSON.stringify(Platform.create(new FakeMachine(), devices).save())), /"counter0"/);
    assert.throws(() => Platform.restore(new FakeMachine(), savedState(), devices), {
      code: 'BAD_STATE',
      message: /devices\.counter0 is missing/,
    });
  });

  it('asserts that names and addresses are unique', () => {
    for (const [other, message] of [
      [counter('com1', 0xd000_0000, 5), /two devices have the name com1/],
      [counter('counter0', 0xd000_0fff, 5), /two devices at address/],
    ] as const) {
      const list: DeviceList = [...LEGACY_DEVICES, counter('first', 0xd000_0000, 10), other];
      assert.throws(() => Platform.create(new FakeMachine(), list), { name: 'AssertionError', message });
    }
  });
});
