/**
 * The ACPI fixed registers PM1a event and PM1a control: ACPI 6.5, section 4.8.3. Guests turn the machine off with them,
 * and learn from them that the host pressed the power button.
 *
 * Invariants:
 * - The SCI is up exactly while an event has both its status and its enable bit. It is level-triggered.
 * - The button is pressed only for a guest that enabled its event. Any other guest would not notice.
 *
 * Not emulated: events other than the power button (sleep button, RTC, global lock release by firmware, timer); sleep
 * states other than S5; leaving ACPI mode.
 */
import { byte, type Check, isRecord, oneOf } from '../../schema.js';
import type {
  AccessSize,
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  IrqLine,
  RegisterRange,
} from './device.js';
import { deviceState } from './device-state.js';
import { PM1A_CONTROL_BLOCK, PM1A_CONTROL_BYTES, PM1A_EVENT_BLOCK, SCI_IRQ, SLEEP_TYPE_S5 } from './ports.js';

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
/** In the high bytes of status and enable: bit 8 of the registers. */
const POWER_BUTTON = 0x01;
const ControlLow = { sciEnable: 0x01, busMasterReload: 0x02 } as const;
const ControlHigh = { sleepType: 0x1c, sleepTypeShift: 2, sleepEnable: 0x20 } as const;

export interface AcpiPmArgs {
  readonly sci: IrqLine;
  /** The guest entered S5, "soft off". */
  readonly onPowerOff: () => void;
}

const DEVICE = 'acpi-pm';
const VERSION = 2;

export interface AcpiPmState extends DeviceState {
  /** Only the power button's bit. Version 1 had no events, and not this field. */
  readonly statusHigh?: number;
  readonly enableLow: number;
  readonly enableHigh: number;
  readonly controlLow: number;
  readonly controlHigh: number;
}

const ENABLE_AND_CONTROL = { enableLow: byte, enableHigh: byte, controlLow: byte, controlHigh: byte };
const STATE_V1: Check<AcpiPmState> = deviceState<Omit<AcpiPmState, 'statusHigh'>>(
  DEVICE,
  1,
  ENABLE_AND_CONTROL,
);
const STATE_V2: Check<AcpiPmState> = deviceState<Required<AcpiPmState>>(DEVICE, VERSION, {
  statusHigh: oneOf(0, POWER_BUTTON),
  ...ENABLE_AND_CONTROL,
});
const STATE: Check<AcpiPmState> = (value, path) =>
  (isRecord(value) && value.version === 1 ? STATE_V1 : STATE_V2)(value, path);

export class AcpiPm implements Device<AcpiPmState> {
  readonly ranges: readonly RegisterRange[] = [
    { offset: 0, length: PM1A_CONTROL_BLOCK + PM1A_CONTROL_BYTES - PM1A_EVENT_BLOCK },
  ];
  /** No effect needs two bytes at once, so a word may come as two bytes. */
  readonly widthBytes = 1;

  readonly #args: AcpiPmArgs;
  #statusHigh = 0;
  #enableLow = 0;
  #enableHigh = 0;
  /** There is no SMI command port, so the machine is in ACPI mode from the start. */
  #controlLow: number = ControlLow.sciEnable;
  #controlHigh = 0;
  #sciLevel = false;

  constructor(args: AcpiPmArgs) {
    this.#args = args;
  }

  static restore(args: AcpiPmArgs, saved: AcpiPmState): AcpiPm {
    const pm = new AcpiPm(args);
    pm.#statusHigh = saved.statusHigh ?? 0;
    pm.#enableLow = saved.enableLow;
    pm.#enableHigh = saved.enableHigh;
    pm.#controlLow = saved.controlLow;
    pm.#controlHigh = saved.controlHigh;
    pm.#updateSci();
    return pm;
  }

  /** Whether the guest has enabled the event of the power button. If so, the button is pressed. */
  pressPowerButton(): boolean {
    if ((this.#enableHigh & POWER_BUTTON) === 0) return false;
    this.#statusHigh |= POWER_BUTTON;
    this.#updateSci();
    return true;
  }

  save(): AcpiPmState {
    return {
      device: DEVICE,
      version: VERSION,
      statusHigh: this.#statusHigh,
      enableLow: this.#enableLow,
      enableHigh: this.#enableHigh,
      controlLow: this.#controlLow,
      controlHigh: this.#controlHigh,
    };
  }

  read(offset: number, _size: AccessSize): number {
    switch (offset) {
      case Register.statusHigh:
        return this.#statusHigh;
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
      case Register.statusHigh:
        // Writing 1 clears a status bit.
        this.#statusHigh &= ~value;
        this.#updateSci();
        break;
      case Register.enableLow:
        this.#enableLow = value & ENABLE_LOW_MASK;
        break;
      case Register.enableHigh:
        this.#enableHigh = value & ENABLE_HIGH_MASK;
        this.#updateSci();
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

  #updateSci(): void {
    const level = (this.#statusHigh & this.#enableHigh) !== 0;
    if (level === this.#sciLevel) return;
    this.#sciLevel = level;
    this.#args.sci.set(level);
  }
}

const argsOf = (parts: DeviceParts): AcpiPmArgs => ({
  sci: parts.irqLine(SCI_IRQ),
  onPowerOff: () => parts.onPowerOff(),
});

export const powerManagement: DeviceDescriptor<AcpiPm, AcpiPmState> = {
  name: 'pm',
  bus: 'pio',
  base: PM1A_EVENT_BLOCK,
  state: STATE,
  create: (parts) => new AcpiPm(argsOf(parts)),
  restore: (parts, state) => AcpiPm.restore(argsOf(parts), state),
};
