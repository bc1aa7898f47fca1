/**
 * The virtio-mmio transport: the registers of one device. Virtio 1.2, section 4.2.
 *
 * Thread: the device thread.
 *
 * Not emulated: the legacy interface (Version is 2, and a driver without VIRTIO_F_VERSION_1 is refused), shared memory
 * regions, reset of a single queue, notification data, packed rings.
 *
 * Invariants:
 * - A register is accessed by 4 aligned bytes. Other accesses read 0 and write nothing, as section 4.2.2.2 forbids them.
 * - The configuration space is accessed by 1, 2 or 4 bytes. Beyond its end it reads 0 and ignores writes.
 */
import { integer } from '../../schema.js';
import type {
  AccessSize,
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  Pausable,
  RegisterRange,
} from '../devices/device.js';
import { deviceState } from '../devices/device-state.js';
import { type CoreState, coreState, DeviceCore } from './device-core.js';
import type { VirtioDescriptor } from './virtio-device.js';
import { type VirtioWindow, WINDOW_BYTES } from './windows.js';

/** Offsets of the registers (table 4.1). */
export const Register = {
  magicValue: 0x000,
  version: 0x004,
  deviceId: 0x008,
  vendorId: 0x00c,
  deviceFeatures: 0x010,
  deviceFeaturesSel: 0x014,
  driverFeatures: 0x020,
  driverFeaturesSel: 0x024,
  queueSel: 0x030,
  queueNumMax: 0x034,
  queueNum: 0x038,
  queueReady: 0x044,
  queueNotify: 0x050,
  interruptStatus: 0x060,
  interruptAck: 0x064,
  status: 0x070,
  queueDescLow: 0x080,
  queueDescHigh: 0x084,
  queueDriverLow: 0x090,
  queueDriverHigh: 0x094,
  queueDeviceLow: 0x0a0,
  queueDeviceHigh: 0x0a4,
  shmLenLow: 0x0b0,
  shmLenHigh: 0x0b4,
  shmBaseLow: 0x0b8,
  shmBaseHigh: 0x0bc,
  configGeneration: 0x0fc,
  config: 0x100,
} as const;

/** "virt" */
const MAGIC = 0x74726976;
const VERSION = 2;
/** "LVSN" */
const VENDOR = 0x4e53564c;

const LOW = 0xffff_ffffn;

/** The 64-bit `value` with one of its halves replaced. */
const withLow = (value: bigint, low: number): bigint => (value & ~LOW) | BigInt(low);
const withHigh = (value: bigint, high: number): bigint => (value & LOW) | (BigInt(high) << 32n);

/** The half of `value` that a selector register names; 0 for those beyond 64 bits. */
const half = (value: bigint, selector: number): number =>
  selector === 0 ? Number(value & LOW) : selector === 1 ? Number(value >> 32n) : 0;

const DEVICE = 'virtio-mmio';
const STATE_VERSION = 1;

export interface MmioTransportState extends DeviceState {
  readonly deviceFeaturesSel: number;
  readonly driverFeaturesSel: number;
  readonly queueSel: number;
  readonly core: CoreState;
}

const selector = integer(0, 0xffff_ffff);

export class MmioTransport implements Device<MmioTransportState> {
  readonly ranges: readonly RegisterRange[] = [{ offset: 0, length: WINDOW_BYTES }];
  readonly widthBytes = 4;
  readonly #core: DeviceCore;
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #queueSel = 0;

  constructor(core: DeviceCore, parts: DeviceParts, window: VirtioWindow) {
    this.#core = core;
    for (let queue = 0; queue < core.queueCount; queue++)
      parts.onDoorbell(window.gpa + Register.queueNotify, queue, () => core.notify(queue));
  }

  get pausable(): Pausable {
    return this.#core;
  }

  read(offset: number, size: AccessSize): number {
    if (offset >= Register.config) return this.#readConfig(offset - Register.config, size);
    return size === 4 && offset % 4 === 0 ? this.#readRegister(offset) : 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset >= Register.config) this.#writeConfig(offset - Register.config, size, value);
    else if (size === 4 && offset % 4 === 0) this.#writeRegister(offset, value);
  }

  save(): MmioTransportState {
    return {
      device: DEVICE,
      version: STATE_VERSION,
      deviceFeaturesSel: this.#deviceFeaturesSel,
      driverFeaturesSel: this.#driverFeaturesSel,
      queueSel: this.#queueSel,
      core: this.#core.save(),
    };
  }

  restoreSelectors(saved: MmioTransportState): void {
    this.#deviceFeaturesSel = saved.deviceFeaturesSel;
    this.#driverFeaturesSel = saved.driverFeaturesSel;
    this.#queueSel = saved.queueSel;
  }

  #readRegister(offset: number): number {
    const core = this.#core;
    const slot = core.slot(this.#queueSel);
    switch (offset) {
      case Register.magicValue:
        return MAGIC;
      case Register.version:
        return VERSION;
      case Register.deviceId:
        return core.deviceType;
      case Register.vendorId:
        return VENDOR;
      case Register.deviceFeatures:
        return half(core.offeredFeatures, this.#deviceFeaturesSel);
      case Register.queueNumMax:
        return slot?.largestSize ?? 0;
      case Register.queueReady:
        return slot?.queue.isReady ? 1 : 0;
      case Register.interruptStatus:
        return core.interruptStatus;
      case Register.status:
        return core.status;
      case Register.shmLenLow:
      case Register.shmLenHigh:
      case Register.shmBaseLow:
      case Register.shmBaseHigh:
        // A region that does not exist has the length −1 (section 4.2.2).
        return 0xffff_ffff;
      case Register.configGeneration:
        return core.configGeneration;
      default:
        return 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const core = this.#core;
    const setup = core.slot(this.#queueSel)?.setup;
    switch (offset) {
      case Register.deviceFeaturesSel:
        this.#deviceFeaturesSel = value;
        return;
      case Register.driverFeaturesSel:
        this.#driverFeaturesSel = value;
        return;
      case Register.driverFeatures:
        if (this.#driverFeaturesSel === 0) core.driverFeatures = withLow(core.driverFeatures, value);
        if (this.#driverFeaturesSel === 1) core.driverFeatures = withHigh(core.driverFeatures, value);
        return;
      case Register.queueSel:
        this.#queueSel = value;
        return;
      case Register.queueNotify:
        core.notify(value);
        return;
      case Register.interruptAck:
        core.acknowledgeInterrupts(value);
        return;
      case Register.status:
        core.writeStatus(value);
        return;
    }
    if (setup) this.#writeQueueRegister(offset, value, setup);
  }

  #writeQueueRegister(
    offset: number,
    value: number,
    setup: { readonly descriptorTable: bigint; readonly availRing: bigint; readonly usedRing: bigint },
  ): void {
    const configure = (change: Parameters<DeviceCore['configureQueue']>[1]): void =>
      this.#core.configureQueue(this.#queueSel, change);
    switch (offset) {
      case Register.queueNum:
        configure({ size: value });
        break;
      case Register.queueReady:
        if (value === 1) this.#core.startQueue(this.#queueSel);
        else if (value === 0) this.#core.stopQueue(this.#queueSel);
        break;
      case Register.queueDescLow:
        configure({ descriptorTable: withLow(setup.descriptorTable, value) });
        break;
      case Register.queueDescHigh:
        configure({ descriptorTable: withHigh(setup.descriptorTable, value) });
        break;
      case Register.queueDriverLow:
        configure({ availRing: withLow(setup.availRing, value) });
        break;
      case Register.queueDriverHigh:
        configure({ availRing: withHigh(setup.availRing, value) });
        break;
      case Register.queueDeviceLow:
        configure({ usedRing: withLow(setup.usedRing, value) });
        break;
      case Register.queueDeviceHigh:
        configure({ usedRing: withHigh(setup.usedRing, value) });
        break;
    }
  }

  #readConfig(offset: number, size: AccessSize): number {
    const { config } = this.#core;
    let value = 0;
    for (let i = 0; i < size; i++) value |= (config[offset + i] ?? 0) << (8 * i);
    return value >>> 0;
  }

  #writeConfig(offset: number, size: AccessSize, value: number): void {
    const { device } = this.#core;
    if (offset + size <= device.config.length) device.writeConfig?.(offset, size, value);
  }
}

/** A virtio device in a window, as a device of the machine. */
export function virtioMmio(
  descriptor: VirtioDescriptor,
  window: VirtioWindow,
): DeviceDescriptor<MmioTransport, MmioTransportState> {
  const { gpa, gsi } = window;
  return {
    name: descriptor.name,
    bus: 'mmio',
    base: gpa,
    state: deviceState<MmioTransportState>(DEVICE, STATE_VERSION, {
      deviceFeaturesSel: selector,
      driverFeaturesSel: selector,
      queueSel: selector,
      core: coreState(descriptor.state),
    }),
    create: (parts) => new MmioTransport(DeviceCore.create(parts, gsi, descriptor), parts, window),
    restore(parts, state) {
      const core = DeviceCore.restore(parts, gsi, descriptor, state.core);
      const transport = new MmioTransport(core, parts, window);
      transport.restoreSelectors(state);
      return transport;
    },
  };
}
