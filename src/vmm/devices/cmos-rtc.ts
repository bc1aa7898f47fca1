/**
 * Real-time clock and CMOS memory: Motorola MC146818A data sheet. The century and the memory sizes are in the cells
 * where PC firmware keeps them.
 *
 * Invariant: the clock is the host's plus an offset that the guest sets, so after a restore it shows the present. A restore
 * that keeps the saved time changes the offset.
 *
 * Not emulated: alarm, periodic and update-ended interrupts (guests may poll the update-ended flag), the square wave,
 * daylight saving, a day of the week that differs from the date's, stopping the divider.
 */
import { base64, byte, integer } from '../../schema.js';
import { highRamBytes, lowRamEnd } from '../boot/memory-layout.js';
import type {
  AccessSize,
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  RegisterRange,
  WallClock,
} from './device.js';
import { decodeBytes, deviceState, encodeBytes } from './device-state.js';
import { RTC_BASE, RTC_CENTURY_REGISTER } from './ports.js';

/** By offset. */
const Port = { index: 0, data: 1 } as const;

const Cell = {
  seconds: 0x00,
  minutes: 0x02,
  hours: 0x04,
  dayOfWeek: 0x06,
  dayOfMonth: 0x07,
  month: 0x08,
  year: 0x09,
  statusA: 0x0a,
  statusB: 0x0b,
  statusC: 0x0c,
  statusD: 0x0d,
  baseMemoryKib: 0x15,
  extendedMemoryKib: 0x17,
  /** A copy of the above, from the power-on self-test. */
  extendedMemoryKibCopy: 0x30,
  century: RTC_CENTURY_REGISTER,
  /** From 16 MiB to the hole, in units of 64 KiB, 2 bytes. */
  memoryAbove16Mib: 0x34,
  /** From 4 GiB, in units of 64 KiB, 3 bytes. */
  memoryAbove4Gib: 0x5b,
} as const;

const StatusA = { updateInProgress: 0x80 } as const;
const StatusB = { set: 0x80, binary: 0x04, hours24: 0x02 } as const;
const StatusC = { updateEnded: 0x10, interrupt: 0x80 } as const;
const StatusD = { valid: 0x80 } as const;
const PM = 0x80;
/** 32.768 kHz, periodic rate 1.024 kHz: the value that every BIOS sets. */
const STATUS_A_DEFAULT = 0x26;

const CELLS = 128;
const INDEX_MASK = CELLS - 1;
/** How long update-in-progress is set before each second. A time that is read while it is clear is consistent. */
const UPDATE_MS = 1;

const KIB = 1024;
const MIB = 1024 * KIB;
const UNIT_64_KIB = 64 * KIB;
const BASE_MEMORY_KIB = 639;

export interface CmosRtcArgs {
  readonly clock: WallClock;
  /** RAM below the hole that ends at 4 GiB, and above it. */
  readonly lowRamBytes: number;
  readonly highRamBytes: number;
}

const DEVICE = 'cmos-rtc';
const VERSION = 1;
/** More than the clock's years 0 to 16,665 can differ from any host's time. */
const MAX_OFFSET_SECONDS = 1e12;

/** The decoded fields of the clock, and their cells. */
const Field = { seconds: 0, minutes: 1, hours: 2, dayOfMonth: 3, month: 4, year: 5, century: 6 } as const;
const FIELDS = 7;
const CELL_OF_FIELD = [
  Cell.seconds,
  Cell.minutes,
  Cell.hours,
  Cell.dayOfMonth,
  Cell.month,
  Cell.year,
  Cell.century,
] as const;

export interface CmosRtcState extends DeviceState {
  readonly index: number;
  /** All cells, in base64. Those of the clock and the status registers are unused. */
  readonly cells: string;
  readonly statusA: number;
  readonly statusB: number;
  /** How far the guest's clock is ahead of the host's. */
  readonly offsetSeconds: number;
  /** The clock's fields, in base64. They are used while the guest has stopped the clock (`set` in status B). */
  readonly fields: string;
  /** The second of the guest's clock in which status C was last read. */
  readonly seenSecond: number;
}

const STATE = deviceState<CmosRtcState>(DEVICE, VERSION, {
  index: integer(0, INDEX_MASK),
  cells: base64(CELLS),
  statusA: byte,
  statusB: byte,
  offsetSeconds: integer(-MAX_OFFSET_SECONDS, MAX_OFFSET_SECONDS),
  fields: base64(FIELDS),
  seenSecond: integer(-2 * MAX_OFFSET_SECONDS, 2 * MAX_OFFSET_SECONDS),
});

export class CmosRtc implements Device<CmosRtcState> {
  readonly ranges: readonly RegisterRange[] = [{ offset: 0, length: 2 }];
  readonly widthBytes = 1;

  readonly #clock: WallClock;
  readonly #cells = new Uint8Array(CELLS);
  readonly #fields = new Uint8Array(FIELDS);
  #index = 0;
  #statusA = STATUS_A_DEFAULT;
  #statusB: number = StatusB.hours24;
  #offsetSeconds = 0;
  #seenSecond: number;
  /** Reused: a read of the clock allocates nothing. */
  readonly #date = new Date(0);

  constructor(args: CmosRtcArgs) {
    this.#clock = args.clock;
    this.#seenSecond = this.#guestSecond();
    this.#describeMemory(args.lowRamBytes, args.highRamBytes);
  }

  static restore(args: CmosRtcArgs, saved: CmosRtcState): CmosRtc {
    const rtc = new CmosRtc(args);
    rtc.#index = saved.index;
    rtc.#cells.set(decodeBytes(saved.cells));
    rtc.#statusA = saved.statusA;
    rtc.#statusB = saved.statusB;
    rtc.#offsetSeconds = saved.offsetSeconds - Math.round(args.clock.heldBackMs / 1000);
    rtc.#fields.set(decodeBytes(saved.fields));
    rtc.#seenSecond = saved.seenSecond;
    return rtc;
  }

  save(): CmosRtcState {
    return {
      device: DEVICE,
      version: VERSION,
      index: this.#index,
      cells: encodeBytes(this.#cells),
      statusA: this.#statusA,
      statusB: this.#statusB,
      offsetSeconds: this.#offsetSeconds,
      fields: encodeBytes(this.#fields),
      seenSecond: this.#seenSecond,
    };
  }

  /** The index port is write-only. */
  read(offset: number, _size: AccessSize): number {
    return offset === Port.data ? this.#readCell(this.#index) : 0xff;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    // Bit 7 of the index port masks NMI, which does not exist here.
    if (offset === Port.index) this.#index = value & INDEX_MASK;
    else this.#writeCell(this.#index, value);
  }

  #readCell(cell: number): number {
    switch (cell) {
      case Cell.statusA:
        return this.#statusA | (this.#updateInProgress() ? StatusA.updateInProgress : 0);
      case Cell.statusB:
        return this.#statusB;
      case Cell.statusC:
        return this.#readStatusC();
      case Cell.statusD:
        return StatusD.valid;
      case Cell.dayOfWeek:
        this.#showTime();
        this.#setDate();
        return this.#encode(this.#date.getUTCDay() + 1);
    }
    const field = CELL_OF_FIELD.indexOf(cell as (typeof CELL_OF_FIELD)[number]);
    if (field < 0) return this.#cells[cell]!;
    this.#showTime();
    const value = this.#fields[field]!;
    return field === Field.hours ? this.#encodeHours(value) : this.#encode(value);
  }

  #writeCell(cell: number, value: number): void {
    switch (cell) {
      case Cell.statusA:
        this.#statusA = value & ~StatusA.updateInProgress;
        return;
      case Cell.statusB:
        this.#writeStatusB(value);
        return;
      case Cell.statusC:
      case Cell.statusD:
      case Cell.dayOfWeek:
        return;
    }
    const field = CELL_OF_FIELD.indexOf(cell as (typeof CELL_OF_FIELD)[number]);
    if (field < 0) {
      this.#cells[cell] = value;
      return;
    }
    this.#showTime();
    this.#fields[field] = field === Field.hours ? this.#decodeHours(value) : this.#decode(value);
    if (!this.#stopped) this.#adoptTime();
  }

  #writeStatusB(value: number): void {
    const wasStopped = this.#stopped;
    this.#showTime();
    this.#statusB = value;
    if (wasStopped && !this.#stopped) this.#adoptTime();
  }

  #readStatusC(): number {
    const second = this.#guestSecond();
    const updated = !this.#stopped && second !== this.#seenSecond;
    this.#seenSecond = second;
    if (!updated) return 0;
    return StatusC.updateEnded | (this.#statusB & StatusC.updateEnded ? StatusC.interrupt : 0);
  }

  get #stopped(): boolean {
    return (this.#statusB & StatusB.set) !== 0;
  }

  #guestSecond(): number {
    return Math.floor(this.#clock.nowMs() / 1000) + this.#offsetSeconds;
  }

  #updateInProgress(): boolean {
    const ms = this.#clock.nowMs() % 1000;
    return !this.#stopped && ms >= 1000 - UPDATE_MS;
  }

  /** Sets the fields to the present, unless the clock is stopped. */
  #showTime(): void {
    if (this.#stopped) return;
    const date = this.#date;
    date.setTime(this.#guestSecond() * 1000);
    // The fields have room for four digits.
    const year = ((date.getUTCFullYear() % 10_000) + 10_000) % 10_000;
    this.#fields[Field.seconds] = date.getUTCSeconds();
    this.#fields[Field.minutes] = date.getUTCMinutes();
    this.#fields[Field.hours] = date.getUTCHours();
    this.#fields[Field.dayOfMonth] = date.getUTCDate();
    this.#fields[Field.month] = date.getUTCMonth() + 1;
    this.#fields[Field.year] = year % 100;
    this.#fields[Field.century] = Math.floor(year / 100);
  }

  /** Sets the clock by the fields. A second begins when the host's begins. */
  #adoptTime(): void {
    this.#setDate();
    this.#offsetSeconds = this.#date.getTime() / 1000 - Math.floor(this.#clock.nowMs() / 1000);
  }

  /** Sets the date by the fields. A value beyond a field's range carries over, as in any Date. */
  #setDate(): void {
    const fields = this.#fields;
    this.#date.setTime(0);
    this.#date.setUTCFullYear(
      fields[Field.century]! * 100 + fields[Field.year]!,
      fields[Field.month]! - 1,
      fields[Field.dayOfMonth]!,
    );
    this.#date.setUTCHours(fields[Field.hours]!, fields[Field.minutes]!, fields[Field.seconds]!);
  }

  #encode(value: number): number {
    return this.#statusB & StatusB.binary
      ? value & 0xff
      : ((Math.floor(value / 10) << 4) | (value % 10)) & 0xff;
  }

  #decode(value: number): number {
    return this.#statusB & StatusB.binary ? value : (value >> 4) * 10 + (value & 0xf);
  }

  #encodeHours(hours: number): number {
    if (this.#statusB & StatusB.hours24) return this.#encode(hours);
    return this.#encode(hours % 12 || 12) | (hours >= 12 ? PM : 0);
  }

  #decodeHours(value: number): number {
    if (this.#statusB & StatusB.hours24) return this.#decode(value);
    return (this.#decode(value & ~PM) % 12) + (value & PM ? 12 : 0);
  }

  /** Stores the memory sizes, as a BIOS does. */
  #describeMemory(lowRamBytes: number, highRamBytes: number): void {
    const extendedKib = Math.min(0xffff, Math.max(0, lowRamBytes - MIB) / KIB);
    this.#store(Cell.baseMemoryKib, 2, BASE_MEMORY_KIB);
    this.#store(Cell.extendedMemoryKib, 2, extendedKib);
    this.#store(Cell.extendedMemoryKibCopy, 2, extendedKib);
    this.#store(
      Cell.memoryAbove16Mib,
      2,
      Math.min(0xffff, Math.max(0, lowRamBytes - 16 * MIB) / UNIT_64_KIB),
    );
    this.#store(Cell.memoryAbove4Gib, 3, Math.min(0xff_ffff, highRamBytes / UNIT_64_KIB));
  }

  #store(cell: number, bytes: number, value: number): void {
    for (let i = 0; i < bytes; i++) this.#cells[cell + i] = Math.floor(value / 256 ** i) % 256;
  }
}

const argsOf = ({ clock, memory }: DeviceParts): CmosRtcArgs => ({
  clock,
  lowRamBytes: lowRamEnd(memory.layout),
  highRamBytes: highRamBytes(memory.layout),
});

export const realTimeClock: DeviceDescriptor<CmosRtc, CmosRtcState> = {
  name: 'rtc',
  bus: 'pio',
  base: RTC_BASE,
  state: STATE,
  create: (parts) => new CmosRtc(argsOf(parts)),
  restore: (parts, state) => CmosRtc.restore(argsOf(parts), state),
};
