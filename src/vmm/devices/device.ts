/**
 * What a device model is: registers that a guest reads and writes, and a state that can be saved at any moment.
 *
 * Invariants: `read` and `write` never throw, whatever the guest does, and allocate nothing; time, interrupt lines
 * and memory come from outside. All calls are made on one thread, the device thread.
 */

/** Sizes of one access, bytes. */
export type AccessSize = 1 | 2 | 4;

/** A run of ports or addresses, relative to where the device is attached. */
export interface RegisterRange {
  readonly offset: number;
  readonly length: number;
}

/** An interrupt line, level by level; setting the level it has is allowed and does nothing. */
export interface IrqLine {
  set(level: boolean): void;
}

/** The host's wall clock. */
export interface WallClock {
  /** Milliseconds since 1970-01-01 UTC, whole. */
  nowMs(): number;
}

/** Plain JSON data, with the name and version of what it describes. */
export interface DeviceState {
  readonly device: string;
  readonly version: number;
}

export interface Device<State extends DeviceState = DeviceState> {
  readonly ranges: readonly RegisterRange[];
  /** The widest access that reaches the device whole; the bus splits a wider one into bytes, as ISA does. */
  readonly widthBytes: AccessSize;
  /**
   * `offset` is relative to where the device is attached and lies, all `size` bytes of it, in one range. The value
   * is unsigned.
   */
  read(offset: number, size: AccessSize): number;
  /** `value` is unsigned; bits beyond `size` are 0. */
  write(offset: number, size: AccessSize, value: number): void;
  /**
   * A string instruction with byte items: one register, `count` times over, its bytes at `data[at]` and on.
   * A device that has no use for it leaves it out; the bus then goes item by item.
   */
  readBytes?(offset: number, data: Uint8Array, at: number, count: number): void;
  writeBytes?(offset: number, data: Uint8Array, at: number, count: number): void;
  save(): State;
}
