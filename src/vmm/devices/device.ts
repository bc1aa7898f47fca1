/**
 * A device model: registers that a guest reads and writes, and a state that can be saved at any moment. Its
 * descriptor says where it is attached and how it is made or restored.
 *
 * Thread: the device thread makes all calls.
 *
 * Invariants:
 * - `read` and `write` never throw, whatever the guest does, and allocate nothing.
 * - Time, interrupt lines and memory come from outside, as {@link DeviceParts}.
 */
import type { Check } from '../../schema.js';
import type { DmaMemory } from '../memory/guest-memory.js';

/** The size of one access, in bytes. */
export type AccessSize = 1 | 2 | 4;

/** A range of ports or addresses, relative to the base of the device. */
export interface RegisterRange {
  readonly offset: number;
  readonly length: number;
}

/** An interrupt line. Setting the level that it has does nothing. */
export interface IrqLine {
  set(level: boolean): void;
}

/** An edge-triggered interrupt. */
export interface EdgeIrq {
  pulse(): void;
}

/** Calls back once, after the time that was set last. */
export interface Timer {
  /** Null: not at all. 0: after what is ready now has had its turn. */
  set(delayMs: number | null): void;
}

/** A watched file descriptor of the host. */
export interface Watch {
  set(events: { readonly read: boolean; readonly write: boolean }): void;
  /** Ends it; call it before the descriptor is closed. */
  end(): void;
}

/** The host's wall clock. */
export interface WallClock {
  /** Whole milliseconds since 1970-01-01 UTC. */
  nowMs(): number;
  /** How far a restore keeps the guest's clocks behind: the time since the save, if the guest shall not count it. */
  readonly heldBackMs: number;
}

/** Plain JSON data, with the kind of device and the version of the format. */
export interface DeviceState {
  readonly device: string;
  readonly version: number;
}

export interface Device<State extends DeviceState = DeviceState> {
  readonly ranges: readonly RegisterRange[];
  /** The widest access that the device receives in one piece. The bus splits a wider one into bytes, as ISA does. */
  readonly widthBytes: AccessSize;
  /**
   * `offset` is relative to the base of the device. All `size` bytes lie in one range. The value is unsigned.
   */
  read(offset: number, size: AccessSize): number;
  /** `value` is unsigned; bits beyond `size` are 0. */
  write(offset: number, size: AccessSize, value: number): void;
  /**
   * A string instruction with byte items: `count` accesses of one register, with the bytes from `data[at]` on.
   * Without this function the bus makes the accesses one by one.
   */
  readBytes?(offset: number, data: Uint8Array, at: number, count: number): void;
  writeBytes?(offset: number, data: Uint8Array, at: number, count: number): void;
  save(): State;
  /** Only devices have it whose work goes on after an access, or begins without one. */
  readonly pausable?: Pausable;
}

/** How the work of a device is paused: `suspend`, then `freeze` once it is idle or waited long enough, then `resume`. */
export interface Pausable {
  /** Whether no work is unfinished. */
  readonly isIdle: boolean;
  /** Begins no work from now on. Work that ends is still told to the guest. */
  suspend(): void;
  /** Changes no memory of the guest from now on, but by work that is unfinished. Its state may be saved after this. */
  freeze(): void;
  /** Ends both, also in a device that was created or restored: a device begins frozen. */
  resume(): void;
}

/** A device that is the console of a machine. */
export interface ConsoleDevice extends Device {
  /** Whether writing the data port now does nothing but send: no interrupt follows, no other register changes. */
  readonly sendsOnly: boolean;
  /** Takes as much host input as there is room for, and returns how many bytes that was. */
  offerInput(bytes: Uint8Array): number;
  /** Hands on the output that it has gathered. */
  flush(): void;
}

/** What a device may use of the machine around it. */
export interface DeviceParts {
  readonly memory: DmaMemory;
  readonly clock: WallClock;
  /** An interrupt line by its global number (GSI; for ISA interrupts the IRQ), low at first. */
  irqLine(gsi: number): IrqLine;
  /** An interrupt that is raised by pulses. Each number is asked for once. */
  edgeIrq(gsi: number): EdgeIrq;
  /**
   * Calls back after the guest has written `queue` (4 bytes) to the guest-physical address `gpa`; once for several
   * writes. Such writes do not reach the device.
   */
  onDoorbell(gpa: number, queue: number, rung: () => void): void;
  /** Calls back again and again while `fd` is ready. */
  watch(fd: number, events: { readonly read: boolean; readonly write: boolean }, ready: () => void): Watch;
  timer(due: () => void): Timer;
  /** Makes the guest wait for the end of the access that the device handles now, a write, until `release` is called. */
  holdAccess(): { release(): void };
  /** A line for the machine's log. */
  log(line: string): void;
  /** A burst of console output; the bytes are valid until it returns. */
  onConsoleOutput(bytes: Uint8Array): void;
  /** The guest has read all console input that the console took. */
  onConsoleDrained(): void;
  /** The guest asked for a reset. */
  onReset(): void;
  /** The guest turned the machine off. */
  onPowerOff(): void;
}

/** One device of a machine. A kind of device that a machine may have several times has a function that makes these. */
export interface DeviceDescriptor<D extends Device = Device, State extends DeviceState = DeviceState> {
  /** Names the device within its machine and its snapshots. */
  readonly name: string;
  readonly bus: 'pio' | 'mmio';
  /** The port or guest-physical address of the device's offset 0. */
  readonly base: number;
  /** The check that a saved state passes before {@link restore} gets it. */
  readonly state: Check<State>;
  /** The device as it is when the machine is switched on. */
  create(parts: DeviceParts): D;
  /** The device as it was when saved; it raises its interrupt line if that was up. */
  restore(parts: DeviceParts, state: State): D;
}
