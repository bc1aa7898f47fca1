/**
 * The ACPI fixed registers PM1a event and PM1a control: ACPI 6.5, section 4.8.3. Guests turn the machine off with them.
 *
 * Not emulated: events (power and sleep button, global lock release by firmware, timer), so there is no SCI; sleep
 * states other than S5; leaving ACPI mode.
 */
import { byte } from '../../schema.js';
import type { AccessSize, Device, DeviceDescriptor, DeviceState, RegisterRange } from './device.js';
import { deviceState } from './device-state.js';
import { PM1A_CONTROL_BLOCK, PM1A_CONTROL_BYTES, PM1A_EVENT_BLOCK, SLEEP_TYPE_S5 } from './ports.js';

/** Byte registers, by offset. */
const Register = {
  statusLow: 0,
  statusHigh: 1,
  enableLow: 2,
  enableHigh: 3,
  controlLow: 4,
  controlHigh: 5,
} as const;

/** The enable bits that exist: timer and global lock; power button, sleep button and RTC. */
const ENABLE_LOW_MASK = 0x21;
const ENABLE_HIGH_MASK = 0x07;
const ControlLow = { sciEnable: 0x01, busMasterReload: 0x02 } as const;
const ControlHigh = { sleepType: 0x1c, sleepTypeShift: 2, sleepEnable: 0x20 } as const;

export interface AcpiPmArgs {
  /** The guest entered S5, "soft off". */
  readonly onPowerOff: () => void;
}

const DEVICE = 'acpi-pm';
const VERSION = 1;

export interface AcpiPmState extends DeviceState {
  readonly enableLow: number;
  readonly enableHigh: number;
  readonly controlLow: number;
  readonly controlHigh: number;
}

const STATE = deviceState<AcpiPmState>(DEVICE, VERSION, {
  enableLow: byte,
  enableHigh: byte,
  controlLow: byte,
  controlHigh: byte,
});

export class AcpiPm implements Device<AcpiPmState> {
  readonly ranges: readonly RegisterRange[] = [
    { offset: 0, length: PM1A_CONTROL_BLOCK + PM1A_CONTROL_BYTES - PM1A_EVENT_BLOCK },
  ];
  /** No effect needs two bytes at once, so a word may come as two bytes. */
  readonly widthBytes = 1;

  readonly #args: AcpiPmArgs;
  #enableLow = 0;
  #enableHigh = 0;
  /** There is no SMI command port, so the machine is in ACPI mode from the start. */
  #controlLow: number = ControlLow.sciEnable;
  #controlHigh = 0;

  constructor(args: AcpiPmArgs) {
    this.#args = args;
  }

  static restore(args: AcpiPmArgs, saved: AcpiPmState): AcpiPm {
    const pm = new AcpiPm(args);
    pm.#enableLow = saved.enableLow;
    pm.#enableHigh = saved.enableHigh;
    pm.#controlLow = saved.controlLow;
    pm.#controlHigh = saved.controlHigh;
    return pm;
  }

  save(): AcpiPmState {
    return {
      device: DEVICE,
      version: VERSION,
      enableLow: this.#enableLow,
      enableHigh: this.#enableHigh,
      controlLow: this.#controlLow,
      controlHigh: this.#controlHigh,
    };
  }

  read(offset: number, _size: AccessSize): number {
    switch (offset) {
      case Register.enableLow:
        return this.#enableLow;
      case Register.enableHigh:
        return this.#enableHigh;
      case Register.controlLow:
        return this.#controlLow;
      case Register.controlHigh:
        return this.#controlHigh;
      default:
        return 0;
    }
  }

  write(offset: number, _size: AccessSize, value: number): void {
    switch (offset) {
      case Register.enableLow:
        this.#enableLow = value & ENABLE_LOW_MASK;
        break;
      case Register.enableHigh:
        this.#enableHigh = value & ENABLE_HIGH_MASK;
        break;
      case Register.controlLow:
        this.#controlLow = ControlLow.sciEnable | (value & ControlLow.busMasterReload);
        break;
      case Register.controlHigh: {
        // `sleepEnable` acts when it is written, and reads as 0.
        this.#controlHigh = value & ControlHigh.sleepType;
        const type = (value & ControlHigh.sleepType) >> ControlHigh.sleepTypeShift;
        if (value & ControlHigh.sleepEnable && type === SLEEP_TYPE_S5) this.#args.onPowerOff();
        break;
      }
    }
  }
}

export const powerManagement: DeviceDescriptor<AcpiPm, AcpiPmState> = {
  name: 'pm',
  bus: 'pio',
  base: PM1A_EVENT_BLOCK,
  state: STATE,
  create: (parts) => new AcpiPm({ onPowerOff: () => parts.onPowerOff() }),
  restore: (parts, state) => AcpiPm.restore({ onPowerOff: () => parts.onPowerOff() }, state),
};
