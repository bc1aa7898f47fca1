import assert from 'node:assert/strict';
import { Platform, type PlatformState } from '../../../../src/vmm/devices/platform.js';
import { FakeMachine } from './fakes.js';

type Loose = { version: unknown; devices: Record<string, Record<string, unknown>> };

/** A state as it comes back from a file, to be spoiled. */
const savedState = (): Loose => JSON.parse(JSON.stringify(Platform.create(new FakeMachine()).save()));

const refused = (state: unknown, message: RegExp): void => {
  assert.throws(() => Platform.restore(new FakeMachine(), state), { code: 'BAD_STATE', message });
};

describe('platform', () => {
  it('has its devices where a PC has them', () => {
    const machine = new FakeMachine();
    const { pio } = Platform.create(machine);
    assert.equal(pio.read(0x3fd, 1), 0x60, 'the serial port’s LSR');
    assert.equal(pio.read(0x64, 1), 0x14, 'the keyboard controller’s status');
    pio.write(0x70, 1, 0x04);
    assert.equal(pio.read(0x71, 1), 0x12, 'the clock’s hour');
    assert.equal(pio.read(0x604, 2), 1, 'PM1a control');
    for (const port of [0x5f, 0x61, 0x63, 0x65, 0x72, 0x80, 0x3f7, 0x400, 0x5ff, 0x606])
      assert.equal(pio.read(port, 1), 0xff);
  });

  it('tells the machine what the guest wants', () => {
    const machine = new FakeMachine();
    const platform = Platform.create(machine);
    platform.pio.write(0x64, 1, 0xfe);
    platform.pio.write(0x604, 2, 0x3400);
    platform.pio.writeItems(0x3f8, 1, 5, Buffer.from('Linux'), 0);
    platform.flush();
    assert.deepEqual(machine.events, ['reset', 'powerOff']);
    assert.equal(machine.console, 'Linux');
  });

  it('raises interrupt 4 for console input and takes more when it is drained', () => {
    const machine = new FakeMachine();
    const { pio, com1 } = Platform.create(machine);
    pio.write(0x3fc, 1, 0x0b);
    pio.write(0x3f9, 1, 1);
    assert.equal(com1.offerInput(Buffer.from('xy')), 2);
    assert.equal(machine.irqLine(4).level, true);
    assert.equal(machine.irqLine(1).level, false);
    assert.equal(pio.read(0x3f8, 1), 'x'.charCodeAt(0));
    assert.deepEqual(machine.events, ['drained']);
  });

  it('saves plain data, a state for each device', () => {
    const state: PlatformState = Platform.create(new FakeMachine()).save();
    assert.deepEqual(JSON.parse(JSON.stringify(state)), state);
    assert.deepEqual(Object.keys(state.devices).sort(), ['com1', 'keyboard', 'pm', 'rtc']);
  });

  it('refuses to restore what is not the state of these devices', () => {
    for (const state of [null, undefined, 7, 'state', [], {}, { version: 1 }, { version: 1, devices: [] }]) {
      refused(state, /not the states of devices/);
    }
    const { devices } = savedState();
    for (const name of Object.keys(devices)) {
      const without = savedState();
      delete without.devices[name];
      refused(without, new RegExp(`the device ${name} is missing`));
    }
    const more = savedState();
    more.devices.net0 = { device: 'virtio-net', version: 1 };
    refused(more, /the device "net0" is not known/);
    const swapped = savedState();
    swapped.devices.pm = swapped.devices.keyboard!;
    refused(swapped, /not the state of acpi-pm/);
  });

  it('refuses newer versions by name', () => {
    const newer = savedState();
    newer.version = 2;
    refused(newer, /version is 2.*reads version 1/);
    for (const name of Object.keys(newer.devices)) {
      const state = savedState();
      const device = state.devices[name]!;
      device.version = 2;
      refused(state, new RegExp(`${String(device.device)} has version 2`));
    }
  });

  it('refuses every field that is missing, unknown, or of another type or size', () => {
    for (const [name, device] of Object.entries(savedState().devices)) {
      const withField = (field: string, value: unknown): Loose => {
        const state = savedState();
        state.devices[name]![field] = value;
        return state;
      };
      refused(withField('surprise', 0), /"surprise" that is not known/);
      for (const [field, value] of Object.entries(device)) {
        if (field === 'device' || field === 'version') continue;
        const missing = savedState();
        delete missing.devices[name]![field];
        refused(missing, new RegExp(`lacks ${field}`));
        const wrong =
          typeof value === 'number'
            ? [-1e17, 0.5, Number.NaN, 1e17, 2 ** 53, '1', null, true, [], {}]
            : typeof value === 'string'
              ? ['no base64!', Buffer.alloc(5000).toString('base64'), 'QQ', 'QR==', 1, null, []]
              : [0, 1, 'true', null];
        for (const bad of wrong) refused(withField(field, bad), new RegExp(`a ${field} that cannot be`));
      }
    }
  });
});
