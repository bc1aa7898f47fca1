/**
 * A 16550A serial port: National Semiconductor PC16550D data sheet, sections 8 (registers) and 8.5 to 8.8
 * (interrupts, FIFOs, loopback); wired as on a PC, where OUT2 gates the interrupt.
 *
 * Invariants:
 * - Host input is lost only when the guest clears the FIFO.
 * - The interrupt line always has the level that the registers require, and is set only when that changes.
 * - At most {@link INPUT_QUEUE_BYTES} of host input wait here.
 *
 * Simplified: a byte is transmitted at once, so THRE and TEMT are always set. Host input enters the receive FIFO when
 * there is room and the guest asserts DTR. Linux asserts it for its early console, and empties the FIFO again when it
 * opens the port, so input that is typed in between may be lost. Bytes below the FIFO's trigger level raise a character timeout at once, not after four
 * character times.
 *
 * Not emulated: baud rates and word formats (the registers hold what was written), parity and framing errors,
 * breaks, DMA mode, modem lines other than in loopback (CTS, DSR and DCD are on, RI is off).
 */
import { base64, byte, flag } from '../../schema.js';
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
const VERSION = 1;

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
}

const STATE = deviceState<Serial16550aState>(DEVICE, VERSION, {
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
  input: base64(0, INPUT_QUEUE_BYTES),
});

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
  readonly #input = new ByteQueue(INPUT_QUEUE_BYTES);
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
    };
  }

  /** Takes as much host input as there is room for, and returns how many bytes that was. */
  offerInput(bytes: Uint8Array): number {
    const taken = this.#input.push(bytes);
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
    }
    this.#fifo.pushByte(value);
  }

  #readReceived(): number {
    if (this.#fifo.length === 0) return 0;
    const value = this.#fifo.shift();
    this.#receiveMore();
    return value;
  }

  /** Receives after the guest made room or asserted DTR. */
  #receiveMore(): void {
    const waited = this.#input.length > 0;
    this.#receive();
    if (waited && this.#input.length === 0) this.#args.onInputDrained();
  }

  /** Moves host input into the receiver while DTR is asserted and there is room. */
  #receive(): void {
    if ((this.#mcr & (Mcr.dtr | Mcr.loopback)) === Mcr.dtr) {
      while (this.#input.length > 0 && this.#fifo.length < this.#receiverBytes) {
        this.#fifo.pushByte(this.#input.shift());
      }
    }
    this.#updateIrq();
  }

  #writeIer(value: number): void {
    const enabled = value & ~this.#ier;
    this.#ier = value & Ier.all;
    // Enabling it while THR is empty raises the interrupt at once. Drivers start a transmission this way.
    if (enabled & Ier.thrEmpty) this.#thrEmptyPending = true;
    this.#updateIrq();
  }

  #writeFcr(value: number): void {
    const wasEnabled = this.#fifosEnabled;
    // The other bits have an effect only together with `enable`.
    this.#fcr = value & Fcr.enable ? value & (Fcr.enable | Fcr.trigger) : 0;
    if (this.#fifosEnabled !== wasEnabled || (this.#fifosEnabled && value & Fcr.clearReceiver))
      this.#fifo.clear();
    this.#receiveMore();
  }

  #writeMcr(value: number): void {
    const before = this.#modemLines();
    this.#mcr = value & Mcr.all;
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
    const ready = this.#fifo.length > 0 ? Lsr.dataReady : 0;
    const value = Lsr.thrEmpty | Lsr.transmitterEmpty | this.#lineErrors | ready;
    this.#lineErrors = 0;
    this.#updateIrq();
    return value;
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
