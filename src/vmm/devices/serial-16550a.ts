/**
 * A 16550A serial port: National Semiconductor PC16550D data sheet, sections 8 (registers) and 8.5 to 8.8
 * (interrupts, FIFOs, loopback); wired as on a PC, where OUT2 gates the interrupt.
 *
 * Invariants:
 * - Host input is never lost: bytes that the guest has not read go back to the queue when it resets the FIFO.
 * - The interrupt line always has the level that the registers require, and is set only when that changes.
 * - At most {@link INPUT_QUEUE_BYTES} of host input wait here, with those in the FIFO.
 * - The FIFO has bytes of a loopback first, host input after them.
 *
 * Simplified: a byte is transmitted at once, so THRE and TEMT are always set. Bytes below the FIFO's trigger level raise
 * a character timeout at once, not after four character times.
 *
 * Host input enters the receive FIFO when there is room and the guest asserts DTR and reads: it has enabled the receive
 * interrupt, or it polls LSR. DTR alone tells nothing, because Linux's early console asserts it. Until the port is
 * opened, Linux then resets the FIFO several times, and reads RBR without a look at LSR. So input that is typed during
 * boot is not lost.
 *
 * Not emulated: baud rates and word formats (the registers hold what was written), parity and framing errors,
 * breaks, DMA mode, modem lines other than in loopback (CTS, DSR and DCD are on, RI is off).
 */
import { base64, byte, type Check, flag, integer, isRecord, satisfying } from '../../schema.js';
import { ByteQueue } from './byte-queue.js';
import type {
  AccessSize,
  ConsoleDevice,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  IrqLine,
  RegisterRange,
} from './device.js';
import { decodeBytes, deviceState, encodeBytes } from './device-state.js';
import { COM1_BASE, COM1_IRQ, COM1_PORTS } from './ports.js';

/** By offset. With DLAB set in LCR, the divisor is at 0 and 1. */
const Register = { data: 0, ier: 1, iirFcr: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scratch: 7 } as const;

const Ier = { received: 0x01, thrEmpty: 0x02, lineStatus: 0x04, modemStatus: 0x08, all: 0x0f } as const;
/** By priority, highest first. Bit 0 is set when nothing is pending. */
const Iir = {
  lineStatus: 0x06,
  received: 0x04,
  characterTimeout: 0x0c,
  thrEmpty: 0x02,
  modemStatus: 0x00,
  none: 0x01,
  fifosEnabled: 0xc0,
} as const;
const Fcr = { enable: 0x01, clearReceiver: 0x02, trigger: 0xc0, triggerShift: 6 } as const;
const Lcr = { divisorLatch: 0x80 } as const;
const Mcr = { dtr: 0x01, rts: 0x02, out1: 0x04, out2: 0x08, loopback: 0x10, all: 0x1f } as const;
const Lsr = { dataReady: 0x01, overrun: 0x02, thrEmpty: 0x20, transmitterEmpty: 0x40 } as const;
const Msr = { deltas: 0x0f, trailingEdgeRi: 0x04, cts: 0x10, dsr: 0x20, ri: 0x40, dcd: 0x80 } as const;

const FIFO_BYTES = 16;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
/** The most host input that waits in the device, and in a snapshot. */
export const INPUT_QUEUE_BYTES = 4096;
/** Older versions had this in the queue, and a full FIFO besides. */
const MAX_INPUT_BYTES = INPUT_QUEUE_BYTES + FIFO_BYTES;
/**
 * A guest that finds LSR without data this often, and sends nothing between, waits for input. A driver that only sends
 * reads LSR once or twice before it writes.
 */
const POLLS = 8;
const OUTPUT_BUFFER_BYTES = 4096;

export interface Serial16550aArgs {
  readonly irq: IrqLine;
  /** Takes a burst of guest output. The bytes are valid until it returns. */
  readonly output: (bytes: Uint8Array) => void;
  /**
   * Called when an access of the guest took the last host input that waited. More may be offered, also within the
   * call. `offerInput` does not call it, since it returns how much it took.
   */
  readonly onInputDrained: () => void;
}

const DEVICE = 'serial-16550a';
const VERSION = 2;

export interface Serial16550aState extends DeviceState {
  readonly ier: number;
  readonly fcr: number;
  readonly lcr: number;
  readonly mcr: number;
  /** The bits of LSR that reading clears (overrun). */
  readonly lineErrors: number;
  /** The bits of MSR that reading clears. */
  readonly modemDeltas: number;
  readonly scratch: number;
  readonly divisorLow: number;
  readonly divisorHigh: number;
  readonly thrEmptyPending: boolean;
  /** `fifo` and `input` are bytes in base64, oldest first. */
  readonly fifo: string;
  readonly input: string;
  /** Version 1 did not have these, and passed input on as soon as the guest asserted DTR. */
  readonly loopedBytes?: number;
  readonly polls?: number;
  readonly polled?: boolean;
}

const COMMON_FIELDS = {
  ier: byte,
  fcr: byte,
  lcr: byte,
  mcr: byte,
  lineErrors: byte,
  modemDeltas: byte,
  scratch: byte,
  divisorLow: byte,
  divisorHigh: byte,
  thrEmptyPending: flag,
  fifo: base64(0, FIFO_BYTES),
};
const STATE_V1: Check<Serial16550aState> = deviceState<
  Omit<Serial16550aState, 'loopedBytes' | 'polls' | 'polled'>
>(DEVICE, 1, { ...COMMON_FIELDS, input: base64(0, INPUT_QUEUE_BYTES) });
const STATE_V2: Check<Serial16550aState> = satisfying(
  deviceState<Required<Serial16550aState>>(DEVICE, VERSION, {
    ...COMMON_FIELDS,
    input: base64(0, MAX_INPUT_BYTES),
    loopedBytes: integer(0, FIFO_BYTES),
    polls: integer(0, POLLS - 1),
    polled: flag,
  }),
  ({ fifo, input, loopedBytes }) => {
    const received = decodeBytes(fifo).length - loopedBytes;
    return received >= 0 && received + decodeBytes(input).length <= MAX_INPUT_BYTES;
  },
  'has a FIFO, looped bytes and input that do not fit together',
);
const STATE: Check<Serial16550aState> = (value, path) =>
  (isRecord(value) && value.version === 1 ? STATE_V1 : STATE_V2)(value, path);

export class Serial16550a implements ConsoleDevice {
  readonly ranges: readonly RegisterRange[] = [{ offset: 0, length: COM1_PORTS }];
  readonly widthBytes = 1;

  readonly #args: Serial16550aArgs;
  #ier = 0;
  #fcr = 0;
  #lcr = 0;
  #mcr = 0;
  #lineErrors = 0;
  #modemDeltas = 0;
  #scratch = 0;
  /** 9600 baud; nothing here depends on it. */
  #divisorLow = 12;
  #divisorHigh = 0;
  /** The transmitter is empty, and the guest has not yet seen that in IIR. */
  #thrEmptyPending = false;
  readonly #fifo = new ByteQueue(FIFO_BYTES);
  /** How many bytes of the FIFO, the oldest, came by loopback. */
  #loopedBytes = 0;
  readonly #input = new ByteQueue(MAX_INPUT_BYTES);
  /** Reads of LSR that found no data, since the guest last wrote a register or read data; less than {@link POLLS}. */
  #polls = 0;
  /** The guest has polled since it reset the FIFO. */
  #polled = false;
  readonly #output = new Uint8Array(OUTPUT_BUFFER_BYTES);
  #outputBytes = 0;
  #irqLevel = false;

  constructor(args: Serial16550aArgs) {
    this.#args = args;
  }

  static restore(args: Serial16550aArgs, saved: Serial16550aState): Serial16550a {
    const port = new Serial16550a(args);
    port.#ier = saved.ier & Ier.all;
    port.#fcr = saved.fcr & (Fcr.enable | Fcr.trigger);
    port.#lcr = saved.lcr;
    port.#mcr = saved.mcr & Mcr.all;
    port.#lineErrors = saved.lineErrors & Lsr.overrun;
    port.#modemDeltas = saved.modemDeltas & Msr.deltas;
    port.#scratch = saved.scratch;
    port.#divisorLow = saved.divisorLow;
    port.#divisorHigh = saved.divisorHigh;
    port.#thrEmptyPending = saved.thrEmptyPending;
    port.#fifo.push(decodeBytes(saved.fifo));
    port.#loopedBytes = saved.loopedBytes ?? (port.#looped ? port.#fifo.length : 0);
    port.#polls = saved.polls ?? 0;
    port.#polled = saved.polled ?? false;
    port.#input.push(decodeBytes(saved.input));
    port.#updateIrq();
    return port;
  }

  /** Sends the buffered output first, so that the state has none of it. */
  save(): Serial16550aState {
    this.flush();
    return {
      device: DEVICE,
      version: VERSION,
      ier: this.#ier,
      fcr: this.#fcr,
      lcr: this.#lcr,
      mcr: this.#mcr,
      lineErrors: this.#lineErrors,
      modemDeltas: this.#modemDeltas,
      scratch: this.#scratch,
      divisorLow: this.#divisorLow,
      divisorHigh: this.#divisorHigh,
      thrEmptyPending: this.#thrEmptyPending,
      fifo: encodeBytes(this.#fifo.peek()),
      input: encodeBytes(this.#input.peek()),
      loopedBytes: this.#loopedBytes,
      polls: this.#polls,
      polled: this.#polled,
    };
  }

  /** Takes as much host input as there is room for, and returns how many bytes that was. */
  offerInput(bytes: Uint8Array): number {
    const room = INPUT_QUEUE_BYTES - this.#input.length - (this.#fifo.length - this.#loopedBytes);
    const taken = this.#input.push(bytes.subarray(0, Math.max(room, 0)));
    this.#receive();
    return taken;
  }

  /** Sends the output that is buffered. */
  flush(): void {
    if (this.#outputBytes === 0) return;
    const burst = this.#output.subarray(0, this.#outputBytes);
    this.#outputBytes = 0;
    this.#args.output(burst);
  }

  read(offset: number, _size: AccessSize): number {
    switch (offset) {
      case Register.data:
        return this.#divisorLatched ? this.#divisorLow : this.#readReceived();
      case Register.ier:
        return this.#divisorLatched ? this.#divisorHigh : this.#ier;
      case Register.iirFcr:
        return this.#readIir();
      case Register.lcr:
        return this.#lcr;
      case Register.mcr:
        return this.#mcr;
      case Register.lsr:
        return this.#readLsr();
      case Register.msr:
        return this.#readMsr();
      case Register.scratch:
        return this.#scratch;
      default:
        return 0xff;
    }
  }

  write(offset: number, _size: AccessSize, value: number): void {
    this.#polls = 0;
    switch (offset) {
      case Register.data:
        if (this.#divisorLatched) this.#divisorLow = value;
        else this.#transmit(value);
        break;
      case Register.ier:
        if (this.#divisorLatched) this.#divisorHigh = value;
        else this.#writeIer(value);
        break;
      case Register.iirFcr:
        this.#writeFcr(value);
        break;
      case Register.lcr:
        this.#lcr = value;
        break;
      case Register.mcr:
        this.#writeMcr(value);
        break;
      case Register.scratch:
        this.#scratch = value;
        break;
      // LSR and MSR are read-only: the data sheet reserves writing them for factory tests.
    }
  }

  writeBytes(offset: number, data: Uint8Array, at: number, count: number): void {
    if (offset !== Register.data || this.#divisorLatched || this.#looped) {
      for (let i = 0; i < count; i++) this.write(offset, 1, data[at + i]!);
      return;
    }
    this.#polls = 0;
    for (let i = 0; i < count; i++) this.#buffer(data[at + i]!);
    this.#transmitted();
  }

  /** No loopback, no divisor latch, and no interrupt when THR is empty. */
  get sendsOnly(): boolean {
    return !this.#divisorLatched && !this.#looped && (this.#ier & Ier.thrEmpty) === 0;
  }

  get #divisorLatched(): boolean {
    return (this.#lcr & Lcr.divisorLatch) !== 0;
  }

  get #looped(): boolean {
    return (this.#mcr & Mcr.loopback) !== 0;
  }

  get #fifosEnabled(): boolean {
    return (this.#fcr & Fcr.enable) !== 0;
  }

  /** The capacity of the receiver: 16 bytes in the FIFO, or one in RBR. */
  get #receiverBytes(): number {
    return this.#fifosEnabled ? FIFO_BYTES : 1;
  }

  #transmit(value: number): void {
    if (this.#looped) this.#loopBack(value);
    else this.#buffer(value);
    this.#transmitted();
  }

  #buffer(value: number): void {
    this.#output[this.#outputBytes++] = value;
    if (this.#outputBytes === OUTPUT_BUFFER_BYTES) this.flush();
  }

  /** THR was full and is empty again. The line shows both, because an edge-triggered interrupt needs the edge. */
  #transmitted(): void {
    this.#thrEmptyPending = false;
    this.#updateIrq();
    this.#thrEmptyPending = true;
    this.#updateIrq();
  }

  /** On overrun a full FIFO keeps its bytes, and a full RBR is overwritten. */
  #loopBack(value: number): void {
    if (this.#fifo.length >= this.#receiverBytes) {
      this.#lineErrors |= Lsr.overrun;
      if (this.#fifosEnabled) return;
      this.#fifo.clear();
      this.#loopedBytes = 0;
    }
    this.#fifo.pushByte(value);
    this.#loopedBytes++;
  }

  #readReceived(): number {
    if (this.#fifo.length === 0) return 0;
    const value = this.#fifo.shift();
    if (this.#loopedBytes > 0) this.#loopedBytes--;
    this.#polls = 0;
    this.#receiveMore();
    return value;
  }

  /** Receives after the guest made room or began to read. */
  #receiveMore(): void {
    const waited = this.#input.length > 0;
    this.#receive();
    if (waited && this.#input.length === 0) this.#args.onInputDrained();
  }

  /** Whether host input may enter the receiver. */
  get #guestReads(): boolean {
    return (
      (this.#mcr & (Mcr.dtr | Mcr.loopback)) === Mcr.dtr && ((this.#ier & Ier.received) !== 0 || this.#polled)
    );
  }

  /** Moves host input into the receiver while the guest reads and there is room. */
  #receive(): void {
    if (this.#guestReads) {
      while (this.#input.length > 0 && this.#fifo.length < this.#receiverBytes) {
        this.#fifo.pushByte(this.#input.shift());
      }
    }
    this.#updateIrq();
  }

  /** Takes back the host input that the guest has not read. */
  #unreceive(): void {
    while (this.#fifo.length > this.#loopedBytes) this.#input.unshiftByte(this.#fifo.pop());
  }

  #writeIer(value: number): void {
    const enabled = value & ~this.#ier;
    this.#ier = value & Ier.all;
    // Enabling it while THR is empty raises the interrupt at once. Drivers start a transmission this way.
    if (enabled & Ier.thrEmpty) this.#thrEmptyPending = true;
    this.#receiveMore();
  }

  #writeFcr(value: number): void {
    const wasEnabled = this.#fifosEnabled;
    // The other bits have an effect only together with `enable`.
    this.#fcr = value & Fcr.enable ? value & (Fcr.enable | Fcr.trigger) : 0;
    if (this.#fifosEnabled !== wasEnabled || (this.#fifosEnabled && value & Fcr.clearReceiver)) {
      this.#unreceive();
      this.#fifo.clear();
      this.#loopedBytes = 0;
      this.#polled = false;
    }
    this.#receiveMore();
  }

  #writeMcr(value: number): void {
    const before = this.#modemLines();
    this.#mcr = value & Mcr.all;
    // In loopback the guest expects to read only what it sends.
    if (this.#looped) this.#unreceive();
    const after = this.#modemLines();
    const changed = (before ^ after) >> 4;
    // The delta bit of RI is set only when RI ends.
    const ringEnded = before & ~after & Msr.ri;
    this.#modemDeltas |= (changed & Msr.deltas & ~Msr.trailingEdgeRi) | (ringEnded ? Msr.trailingEdgeRi : 0);
    this.#receiveMore();
  }

  /** The upper half of MSR: the lines of the remote side, or in loopback the port's own outputs. */
  #modemLines(): number {
    if (!this.#looped) return Msr.cts | Msr.dsr | Msr.dcd;
    return (
      (this.#mcr & Mcr.rts ? Msr.cts : 0) |
      (this.#mcr & Mcr.dtr ? Msr.dsr : 0) |
      (this.#mcr & Mcr.out1 ? Msr.ri : 0) |
      (this.#mcr & Mcr.out2 ? Msr.dcd : 0)
    );
  }

  #readIir(): number {
    const pending = this.#pending();
    if (pending === Iir.thrEmpty) {
      this.#thrEmptyPending = false;
      this.#updateIrq();
    }
    return pending | (this.#fifosEnabled ? Iir.fifosEnabled : 0);
  }

  #readLsr(): number {
    if (this.#fifo.length === 0) this.#countPoll();
    const ready = this.#fifo.length > 0 ? Lsr.dataReady : 0;
    const value = Lsr.thrEmpty | Lsr.transmitterEmpty | this.#lineErrors | ready;
    this.#lineErrors = 0;
    this.#updateIrq();
    return value;
  }

  #countPoll(): void {
    if (this.#polled || (this.#mcr & (Mcr.dtr | Mcr.loopback)) !== Mcr.dtr || ++this.#polls < POLLS) return;
    this.#polls = 0;
    this.#polled = true;
    this.#receiveMore();
  }

  #readMsr(): number {
    const value = this.#modemLines() | this.#modemDeltas;
    this.#modemDeltas = 0;
    this.#updateIrq();
    return value;
  }

  /** The enabled and pending interrupt of highest priority, as in IIR. */
  #pending(): number {
    if (this.#ier & Ier.lineStatus && this.#lineErrors) return Iir.lineStatus;
    if (this.#ier & Ier.received && this.#fifo.length > 0) {
      const trigger = this.#fifosEnabled ? TRIGGER_LEVELS[this.#fcr >> Fcr.triggerShift]! : 1;
      return this.#fifo.length >= trigger ? Iir.received : Iir.characterTimeout;
    }
    if (this.#ier & Ier.thrEmpty && this.#thrEmptyPending) return Iir.thrEmpty;
    if (this.#ier & Ier.modemStatus && this.#modemDeltas) return Iir.modemStatus;
    return Iir.none;
  }

  #updateIrq(): void {
    // In loopback the OUT2 pin is off, and with it the PC's interrupt line.
    const gated = (this.#mcr & (Mcr.out2 | Mcr.loopback)) === Mcr.out2;
    const level = gated && this.#pending() !== Iir.none;
    if (level === this.#irqLevel) return;
    this.#irqLevel = level;
    this.#args.irq.set(level);
  }
}

const argsOf = (parts: DeviceParts): Serial16550aArgs => ({
  irq: parts.irqLine(COM1_IRQ),
  output: (bytes) => parts.onConsoleOutput(bytes),
  onInputDrained: () => parts.onConsoleDrained(),
});

/** The first serial port, which is the machine's console. */
export const com1: DeviceDescriptor<Serial16550a, Serial16550aState> = {
  name: 'com1',
  bus: 'pio',
  base: COM1_BASE,
  state: STATE,
  create: (parts) => new Serial16550a(argsOf(parts)),
  restore: (parts, state) => Serial16550a.restore(argsOf(parts), state),
};
