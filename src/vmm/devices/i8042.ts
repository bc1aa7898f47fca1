/**
 * The keyboard controller of a PC, without a keyboard: IBM PC AT Technical Reference, "Keyboard controller (8042)".
 * Guests reset the machine with it. Linux also probes it: the controller answers every command, because the driver
 * waits half a second for a missing answer.
 *
 * Not emulated: keyboard and mouse (a byte sent to them times out), the second port (its self-test fails), controller
 * RAM other than the command byte, scan-code translation, the password, the A20 gate (the bit is kept, A20 is always
 * on).
 */
import { byte } from '../../schema.js';
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
import { KEYBOARD_BASE, KEYBOARD_IRQ } from './ports.js';

/** By offset. The ports between belong to other devices. */
const Register = { data: 0, command: 4 } as const;

const Status = { outputFull: 0x01, system: 0x04, command: 0x08, notInhibited: 0x10, timeout: 0x40 } as const;
const CommandByte = { interrupt: 0x01, system: 0x04, disabled: 0x10 } as const;
const OutputPort = { notReset: 0x01, a20: 0x02 } as const;

const Command = {
  readCommandByte: 0x20,
  writeCommandByte: 0x60,
  testSecondPort: 0xa9,
  selfTest: 0xaa,
  testKeyboardPort: 0xab,
  disableKeyboard: 0xad,
  enableKeyboard: 0xae,
  readInputPort: 0xc0,
  readOutputPort: 0xd0,
  writeOutputPort: 0xd1,
  writeKeyboardBuffer: 0xd2,
  writeMouseBuffer: 0xd3,
  writeMouse: 0xd4,
  /** Commands from here on pulse the output port's lines whose bits are 0; bit 0 resets the processor. */
  pulse: 0xf0,
} as const;

const SELF_TEST_PASSED = 0x55;
const PORT_TEST_PASSED = 0x00;
/** "Clock line stuck low." */
const PORT_TEST_FAILED = 0x01;
/** The keyboard lock is open. */
const INPUT_PORT = 0x80;
/** The byte in place of an answer that timed out. */
const RESEND = 0xfe;
const NO_COMMAND = 0;

export interface I8042Args {
  readonly irq: IrqLine;
  /** The guest pulled the processor's reset line. */
  readonly onReset: () => void;
}

const DEVICE = 'i8042';
const VERSION = 1;

export interface I8042State extends DeviceState {
  readonly status: number;
  readonly commandByte: number;
  readonly output: number;
  readonly outputPort: number;
  /** The command that waits for its data byte; 0 for none. */
  readonly awaiting: number;
}

const STATE = deviceState<I8042State>(DEVICE, VERSION, {
  status: byte,
  commandByte: byte,
  output: byte,
  outputPort: byte,
  awaiting: byte,
});

export class I8042 implements Device<I8042State> {
  readonly ranges: readonly RegisterRange[] = [
    { offset: Register.data, length: 1 },
    { offset: Register.command, length: 1 },
  ];
  readonly widthBytes = 1;

  readonly #args: I8042Args;
  /** The state after firmware: self-test passed, keyboard disabled, interrupt off. */
  #status: number = Status.system | Status.notInhibited;
  #commandByte: number = CommandByte.system | CommandByte.disabled;
  #output = 0;
  #outputPort: number = OutputPort.notReset | OutputPort.a20;
  #awaiting: number = NO_COMMAND;
  #irqLevel = false;

  constructor(args: I8042Args) {
    this.#args = args;
  }

  static restore(args: I8042Args, saved: I8042State): I8042 {
    const controller = new I8042(args);
    controller.#status = saved.status;
    controller.#commandByte = saved.commandByte;
    controller.#output = saved.output;
    controller.#outputPort = saved.outputPort;
    controller.#awaiting = saved.awaiting;
    controller.#updateIrq();
    return controller;
  }

  save(): I8042State {
    return {
      device: DEVICE,
      version: VERSION,
      status: this.#status,
      commandByte: this.#commandByte,
      output: this.#output,
      outputPort: this.#outputPort,
      awaiting: this.#awaiting,
    };
  }

  read(offset: number, _size: AccessSize): number {
    if (offset === Register.command) return this.#status;
    this.#status &= ~(Status.outputFull | Status.timeout);
    this.#updateIrq();
    return this.#output;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    if (offset === Register.command) {
      this.#status |= Status.command;
      this.#command(value);
    } else {
      this.#status &= ~Status.command;
      const command = this.#awaiting;
      this.#awaiting = NO_COMMAND;
      this.#data(command, value);
    }
  }

  #command(command: number): void {
    this.#awaiting = NO_COMMAND;
    if (command >= Command.pulse) {
      if ((command & OutputPort.notReset) === 0) this.#args.onReset();
      return;
    }
    switch (command) {
      case Command.readCommandByte:
        this.#answer(this.#commandByte);
        break;
      case Command.selfTest:
        this.#status |= Status.system;
        this.#answer(SELF_TEST_PASSED);
        break;
      case Command.testKeyboardPort:
        this.#answer(PORT_TEST_PASSED);
        break;
      case Command.testSecondPort:
        this.#answer(PORT_TEST_FAILED);
        break;
      case Command.disableKeyboard:
        this.#commandByte |= CommandByte.disabled;
        break;
      case Command.enableKeyboard:
        this.#commandByte &= ~CommandByte.disabled;
        break;
      case Command.readInputPort:
        this.#answer(INPUT_PORT);
        break;
      case Command.readOutputPort:
        this.#answer(this.#outputPort);
        break;
      case Command.writeCommandByte:
      case Command.writeOutputPort:
      case Command.writeKeyboardBuffer:
      case Command.writeMouseBuffer:
      case Command.writeMouse:
        this.#awaiting = command;
        break;
    }
  }

  #data(command: number, value: number): void {
    switch (command) {
      case Command.writeCommandByte:
        this.#commandByte = value;
        this.#status =
          value & CommandByte.system ? this.#status | Status.system : this.#status & ~Status.system;
        this.#updateIrq();
        break;
      case Command.writeOutputPort:
        this.#outputPort = value | OutputPort.notReset;
        if ((value & OutputPort.notReset) === 0) this.#args.onReset();
        break;
      case Command.writeKeyboardBuffer:
      // The loop-back of the second port comes as keyboard data, which shows drivers that the port is missing.
      case Command.writeMouseBuffer:
        this.#answer(value);
        break;
      default:
        // A byte for the keyboard or mouse, which do not exist.
        this.#status |= Status.timeout;
        this.#answer(RESEND);
    }
  }

  #answer(value: number): void {
    this.#output = value;
    this.#status |= Status.outputFull;
    this.#updateIrq();
  }

  #updateIrq(): void {
    const level =
      (this.#status & Status.outputFull) !== 0 && (this.#commandByte & CommandByte.interrupt) !== 0;
    if (level === this.#irqLevel) return;
    this.#irqLevel = level;
    this.#args.irq.set(level);
  }
}

const argsOf = (parts: DeviceParts): I8042Args => ({
  irq: parts.irqLine(KEYBOARD_IRQ),
  onReset: () => parts.onReset(),
});

export const keyboardController: DeviceDescriptor<I8042, I8042State> = {
  name: 'keyboard',
  bus: 'pio',
  base: KEYBOARD_BASE,
  state: STATE,
  create: (parts) => new I8042(argsOf(parts)),
  restore: (parts, state) => I8042.restore(argsOf(parts), state),
};
