/**
 * The set of devices that every machine has, on its two buses, saved and restored as one.
 *
 * Not here: PIC, PIT (with port 0x61, by KVM_PIT_SPEAKER_DUMMY), IOAPIC and LAPIC, which are KVM's; the delay port
 * 0x80, for which the bus's answer to an unclaimed port is the right one.
 */
import { AcpiPm } from './acpi-pm.js';
import { Bus } from './bus.js';
import { CmosRtc } from './cmos-rtc.js';
import type { Device, DeviceState, IrqLine, WallClock } from './device.js';
import { badState, isRecord } from './device-state.js';
import { I8042 } from './i8042.js';
import { COM1_BASE, COM1_IRQ, KEYBOARD_BASE, KEYBOARD_IRQ, PM1A_EVENT_BLOCK, RTC_BASE } from './ports.js';
import { Serial16550a } from './serial-16550a.js';

/** What the devices need of the machine around them. */
export interface PlatformParts {
  /** The line of an ISA interrupt, low at first. */
  irqLine(irq: number): IrqLine;
  readonly clock: WallClock;
  /** RAM below the hole that ends at 4 GiB, and above it. */
  readonly lowRamBytes: number;
  readonly highRamBytes: number;
  /** A burst of console output; the bytes are valid until it returns. */
  onConsoleOutput(bytes: Uint8Array): void;
  /** All console input that was taken has gone to the guest. */
  onConsoleDrained(): void;
  /** The guest asked for a reset. */
  onReset(): void;
  /** The guest turned the machine off. */
  onPowerOff(): void;
}

const VERSION = 1;

/** Plain JSON data: the state of each device under its name. */
export interface PlatformState {
  readonly version: number;
  readonly devices: Readonly<Record<string, DeviceState>>;
}

interface StandardDevices {
  readonly com1: Serial16550a;
  readonly keyboard: I8042;
  readonly rtc: CmosRtc;
  readonly pm: AcpiPm;
}

export class Platform {
  readonly pio = new Bus();
  /** Empty as yet; LAPIC and IOAPIC are KVM's. */
  readonly mmio = new Bus();
  /** The console. */
  readonly com1: Serial16550a;
  readonly #devices: Readonly<Record<string, Device>>;

  private constructor(devices: StandardDevices) {
    this.com1 = devices.com1;
    this.#devices = { ...devices };
    this.pio.attach(COM1_BASE, devices.com1);
    this.pio.attach(KEYBOARD_BASE, devices.keyboard);
    this.pio.attach(RTC_BASE, devices.rtc);
    this.pio.attach(PM1A_EVENT_BLOCK, devices.pm);
  }

  /** Devices as they are when the machine is switched on. */
  static create(parts: PlatformParts): Platform {
    const { com1, keyboard, rtc, pm } = deviceArgs(parts);
    return new Platform({
      com1: new Serial16550a(com1),
      keyboard: new I8042(keyboard),
      rtc: new CmosRtc(rtc),
      pm: new AcpiPm(pm),
    });
  }

  /**
   * Devices as they were when saved; they raise the interrupt lines that were up.
   * @throws LivesnapError BAD_STATE
   */
  static restore(parts: PlatformParts, state: unknown): Platform {
    const { com1, keyboard, rtc, pm } = deviceArgs(parts);
    const states = checkPlatformState(state, ['com1', 'keyboard', 'rtc', 'pm']);
    return new Platform({
      com1: Serial16550a.restore(com1, states.com1),
      keyboard: I8042.restore(keyboard, states.keyboard),
      rtc: CmosRtc.restore(rtc, states.rtc),
      pm: AcpiPm.restore(pm, states.pm),
    });
  }

  save(): PlatformState {
    const devices: Record<string, DeviceState> = {};
    for (const [name, device] of Object.entries(this.#devices)) devices[name] = device.save();
    return { version: VERSION, devices };
  }

  /** Hands on what devices hold back to make bursts of; to be called before the device thread waits. */
  flush(): void {
    this.com1.flush();
  }
}

function deviceArgs(parts: PlatformParts) {
  return {
    com1: {
      irq: parts.irqLine(COM1_IRQ),
      output: (bytes: Uint8Array) => parts.onConsoleOutput(bytes),
      onInputDrained: () => parts.onConsoleDrained(),
    },
    keyboard: { irq: parts.irqLine(KEYBOARD_IRQ), onReset: () => parts.onReset() },
    rtc: { clock: parts.clock, lowRamBytes: parts.lowRamBytes, highRamBytes: parts.highRamBytes },
    pm: { onPowerOff: () => parts.onPowerOff() },
  };
}

function checkPlatformState<Name extends string>(
  state: unknown,
  names: readonly Name[],
): Record<Name, unknown> {
  if (!isRecord(state) || !isRecord(state.devices)) throw badState('they are not the states of devices');
  if (state.version !== VERSION) {
    throw badState(
      `their version is ${String(state.version)}, and this livesnap reads version ${VERSION}`,
      'Restore them with the livesnap that saved them, or a newer one.',
    );
  }
  for (const name of names) {
    if (!Object.hasOwn(state.devices, name)) throw badState(`the device ${name} is missing`);
  }
  for (const name of Object.keys(state.devices)) {
    if (!(names as readonly string[]).includes(name)) {
      throw badState(
        `the device ${JSON.stringify(name.slice(0, 40))} is not known`,
        'Restore it with the livesnap that saved it, or a newer one.',
      );
    }
  }
  return state.devices as Record<Name, unknown>;
}
