/**
 * The devices of a machine on its two buses, created, saved and restored as one.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - Device names are unique, and no two devices claim one address (asserted).
 * - A platform that was created or restored is frozen until {@link Platform.resume}.
 * - A saved state is checked whole before the first device is restored from it.
 */
import assert from 'node:assert/strict';
import { type Check, object, parse } from '../../schema.js';
import { invalidState } from '../saved-state.js';
import { Bus } from './bus.js';
import type {
  ConsoleDevice,
  Device,
  DeviceDescriptor,
  DeviceParts,
  DeviceState,
  Pausable,
} from './device.js';
import { versionCheck } from './device-state.js';
import type { DeviceList } from './machine-devices.js';

const VERSION = 1;

/** Plain JSON data: the state of each device under its name. */
export interface PlatformState {
  readonly version: number;
  readonly devices: Readonly<Record<string, DeviceState>>;
}

const stateCheck = (descriptors: DeviceList): Check<PlatformState> =>
  object({
    version: versionCheck(VERSION),
    devices: object(Object.fromEntries(descriptors.map(({ name, state }) => [name, state]))),
  });

export class Platform implements Pausable {
  readonly pio = new Bus();
  readonly mmio = new Bus();
  readonly console: ConsoleDevice;
  readonly #devices = new Map<string, Device>();
  readonly #pausables: Pausable[] = [];

  private constructor(
    [console, ...others]: DeviceList,
    make: <D extends Device>(descriptor: DeviceDescriptor<D>) => D,
  ) {
    this.console = this.#add(console, make(console));
    for (const descriptor of others) this.#add(descriptor, make(descriptor));
  }

  /** Devices as they are when the machine is switched on. */
  static create(parts: DeviceParts, descriptors: DeviceList): Platform {
    return new Platform(descriptors, (descriptor) => descriptor.create(parts));
  }

  /**
   * Devices as they were when saved; they raise the interrupt lines that were up.
   * @throws LivesnapError BAD_STATE, naming the field that is wrong
   */
  static restore(parts: DeviceParts, state: unknown, descriptors: DeviceList): Platform {
    const { devices } = parse(stateCheck(descriptors), state, ({ message }) => invalidState(message));
    return new Platform(descriptors, (descriptor) => descriptor.restore(parts, devices[descriptor.name]!));
  }

  save(): PlatformState {
    const devices = Object.fromEntries([...this.#devices].map(([name, device]) => [name, device.save()]));
    return { version: VERSION, devices };
  }

  /** Whether no device has unfinished work. */
  get isIdle(): boolean {
    return this.#pausables.every(({ isIdle }) => isIdle);
  }

  suspend(): void {
    for (const pausable of this.#pausables) pausable.suspend();
  }

  freeze(): void {
    for (const pausable of this.#pausables) pausable.freeze();
  }

  resume(): void {
    for (const pausable of this.#pausables) pausable.resume();
  }

  /** Hands on the console output that is gathered; to be called before the device thread waits. */
  flush(): void {
    this.console.flush();
  }

  #add<D extends Device>({ name, bus, base }: DeviceDescriptor<D>, device: D): D {
    assert(!this.#devices.has(name), `two devices have the name ${name}`);
    this.#devices.set(name, device);
    this[bus].attach(base, device);
    if (device.pausable) this.#pausables.push(device.pausable);
    return device;
  }
}
