/**
 * What every transport of a virtio device shares: status, features, queues, interrupt status and the configuration's
 * generation. Virtio 1.2, sections 2.1 to 2.4 and 3.1.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - A violation of the protocol sets DEVICE_NEEDS_RESET. The first one of a device is logged. Nothing throws.
 * - Every bit that is set in the interrupt status is followed by a pulse of the interrupt.
 * - A restored device that was active interrupts its driver and looks at every queue. An interrupt or a notification that
 *   was under way when it was saved is in no state: KVM has it in a work queue or an eventfd.
 * - A reset ends when nothing of the device uses guest memory any more; the guest waits until then.
 */
import { byte, type Check, integer, list, object, satisfying } from '../../schema.js';
import type { DeviceParts, DeviceState, EdgeIrq, Pausable } from '../devices/device.js';
import { invalidState } from '../saved-state.js';
import { hex64, isQueueSize, QUEUE_STATE, type QueueState, toHex } from './queue-state.js';
import { type QueueFeatures, type QueueSetup, SplitQueue } from './split-queue.js';
import type { VirtioDescriptor, VirtioDevice, VirtioLink } from './virtio-device.js';

/** Bits of the device status (section 2.1). */
export const Status = {
  acknowledge: 1,
  driver: 2,
  driverOk: 4,
  featuresOk: 8,
  needsReset: 64,
  failed: 128,
} as const;
const FROM_DRIVER = Status.acknowledge | Status.driver | Status.driverOk | Status.featuresOk | Status.failed;

/** Bits of the interrupt status (section 4.2.2). */
export const InterruptBit = { usedBuffer: 1, configChange: 2 } as const;

/** Feature bits of the transport and the queues (chapter 6). */
export const Feature = { indirectDesc: 1n << 28n, eventIdx: 1n << 29n, version1: 1n << 32n } as const;
const CORE_FEATURES = Feature.indirectDesc | Feature.eventIdx | Feature.version1;

const MAX_QUEUES = 64;

export interface CoreState {
  readonly status: number;
  /** What the driver has accepted, in hexadecimal. */
  readonly features: string;
  readonly interruptStatus: number;
  readonly configGeneration: number;
  readonly queues: readonly QueueState[];
  readonly own: DeviceState;
}

const isPossible = ({ status }: { status: number }): boolean =>
  (status & Status.driverOk) === 0 || (status & Status.featuresOk) !== 0;

/** The check of a saved core; `own` is the check of the device's own state. */
export const coreState = (own: Check<DeviceState>): Check<CoreState> =>
  satisfying(
    object({
      status: satisfying(
        byte,
        (bits) => (bits & ~(FROM_DRIVER | Status.needsReset)) === 0,
        'has unknown bits',
      ),
      features: hex64,
      interruptStatus: integer(0, InterruptBit.usedBuffer | InterruptBit.configChange),
      configGeneration: integer(0, 0xffff_ffff),
      queues: list(QUEUE_STATE, 0, MAX_QUEUES),
      own,
    }),
    isPossible,
    'has DRIVER_OK without FEATURES_OK',
  );

/** A queue and the registers that configure it. */
export interface QueueSlot {
  readonly queue: SplitQueue;
  readonly largestSize: number;
  setup: QueueSetup;
}

const freshSetup = (size: number): QueueSetup => ({
  size,
  descriptorTable: 0n,
  availRing: 0n,
  usedRing: 0n,
});

export class DeviceCore implements VirtioLink, Pausable {
  readonly #name: string;
  readonly #parts: DeviceParts;
  readonly #irq: EdgeIrq;
  readonly #device: VirtioDevice;
  readonly #slots: readonly QueueSlot[];
  #status = 0;
  #features = 0n;
  #interruptStatus = 0;
  #configGeneration = 0;
  #isActive = false;
  #isResetting = false;
  #isSuspended = true;
  #hasLogged = false;

  private constructor(
    { name, parts, gsi }: { name: string; parts: DeviceParts; gsi: number },
    make: (link: VirtioLink) => VirtioDevice,
  ) {
    this.#name = name;
    this.#parts = parts;
    this.#irq = parts.edgeIrq(gsi);
    this.#device = make(this);
    this.#slots = this.#device.queueSizes.map((largestSize) => ({
      queue: new SplitQueue({
        memory: parts.memory,
        interrupt: () => this.#interrupt(InterruptBit.usedBuffer),
        violated: (problem) => this.fail(problem),
      }),
      largestSize,
      setup: freshSetup(largestSize),
    }));
  }

  static create(parts: DeviceParts, gsi: number, descriptor: VirtioDescriptor): DeviceCore {
    return new DeviceCore({ name: descriptor.name, parts, gsi }, (link) => descriptor.create(parts, link));
  }

  /** @throws LivesnapError BAD_STATE when the state is that of another device */
  static restore(
    parts: DeviceParts,
    gsi: number,
    descriptor: VirtioDescriptor,
    saved: CoreState,
  ): DeviceCore {
    const core = new DeviceCore({ name: descriptor.name, parts, gsi }, (link) =>
      descriptor.restore(parts, link, saved.own),
    );
    core.#restore(saved);
    return core;
  }

  get deviceType(): number {
    return this.#device.deviceType;
  }

  get offeredFeatures(): bigint {
    return this.#device.features | CORE_FEATURES;
  }

  /** What the driver has written, accepted or not. */
  get driverFeatures(): bigint {
    return this.#features;
  }

  /** Has an effect before FEATURES_OK only. */
  set driverFeatures(features: bigint) {
    if ((this.#status & Status.featuresOk) === 0) this.#features = features;
  }

  get status(): number {
    return this.#status;
  }

  get interruptStatus(): number {
    return this.#interruptStatus;
  }

  get configGeneration(): number {
    return this.#configGeneration;
  }

  /** The configuration space. */
  get config(): Uint8Array {
    return this.#device.config;
  }

  get device(): VirtioDevice {
    return this.#device;
  }

  slot(index: number): QueueSlot | undefined {
    return this.#slots[index];
  }

  /** How many queues the device has. */
  get queueCount(): number {
    return this.#slots.length;
  }

  acknowledgeInterrupts(bits: number): void {
    this.#interruptStatus &= ~bits;
  }

  /** The driver writes the status. Bits can be added; 0 resets the device. */
  writeStatus(value: number): void {
    if (this.#isResetting) return;
    if (value === 0) {
      this.#reset();
      return;
    }
    let added = value & FROM_DRIVER & ~this.#status;
    if (added & Status.featuresOk && !this.#areFeaturesRight()) added &= ~Status.featuresOk;
    const ready = (this.#status | added) & Status.featuresOk && !(this.#status & Status.needsReset);
    if (added & Status.driverOk && !ready) added &= ~Status.driverOk;
    this.#status |= added;
    if (added & Status.driverOk) {
      this.#activate();
      if (!this.#isSuspended) this.#notifyAll();
    }
  }

  /** Changes the registers of a queue; without effect while it is ready, or at the wrong time. */
  configureQueue(index: number, change: Partial<QueueSetup>): void {
    const slot = this.#slots[index];
    if (slot && !slot.queue.isReady && this.#mayConfigureQueues) slot.setup = { ...slot.setup, ...change };
  }

  startQueue(index: number): void {
    const slot = this.#slots[index];
    if (!slot || slot.queue.isReady || !this.#mayConfigureQueues) return;
    const { size } = slot.setup;
    if (!isQueueSize(size, slot.largestSize)) {
      this.fail(`made queue ${index} ready with a size of ${size}`);
      return;
    }
    slot.queue.start(slot.setup, this.#queueFeatures);
  }

  stopQueue(index: number): void {
    this.#slots[index]?.queue.stop();
  }

  /** The driver has notified the device of a queue. */
  notify(index: number): void {
    if (this.#isSuspended || !this.#isActive || this.#status & Status.needsReset) return;
    if (this.#slots[index]?.queue.isReady) this.#device.notify(index);
  }

  configChanged(): void {
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    if (this.#isActive) this.#interrupt(InterruptBit.configChange);
  }

  fail(problem: string): void {
    if (this.#status & Status.needsReset || this.#isResetting) return;
    this.#status |= Status.needsReset;
    for (const { queue } of this.#slots) queue.break();
    if (!this.#hasLogged) {
      this.#hasLogged = true;
      this.#parts.log(`virtio device ${this.#name}: the guest's driver ${problem}; the device needs a reset`);
    }
    if (this.#isActive) this.#interrupt(InterruptBit.configChange);
  }

  get isIdle(): boolean {
    return !this.#isResetting && this.#slots.every(({ queue }) => queue.isIdle);
  }

  suspend(): void {
    this.#isSuspended = true;
    for (const { queue } of this.#slots) queue.suspend();
  }

  freeze(): void {
    for (const { queue } of this.#slots) queue.freeze();
  }

  resume(): void {
    this.#isSuspended = false;
    for (const { queue } of this.#slots) queue.resume();
    if (this.#isActive && !(this.#status & Status.needsReset)) this.#device.resumed?.();
    this.#notifyAll();
  }

  /** A device that is being reset is saved as reset: in another process nothing of it is in flight. */
  save(): CoreState {
    const own = this.#device.save();
    const queues = this.#slots.map(({ queue, setup, largestSize }): QueueState => {
      const { size, descriptorTable, availRing, usedRing } = this.#isResetting
        ? freshSetup(largestSize)
        : setup;
      const progress = this.#isResetting
        ? { ready: false, lastAvail: 0, usedIndex: 0, heads: [] }
        : queue.save();
      return {
        size,
        descriptorTable: toHex(descriptorTable),
        availRing: toHex(availRing),
        usedRing: toHex(usedRing),
        ...progress,
      };
    });
    return {
      status: this.#isResetting ? 0 : this.#status,
      features: toHex(this.#isResetting ? 0n : this.#features),
      interruptStatus: this.#isResetting ? 0 : this.#interruptStatus,
      configGeneration: this.#configGeneration,
      queues,
      own,
    };
  }

  #restore(saved: CoreState): void {
    const wrong = (problem: string): Error => invalidState(`virtio device ${this.#name}: ${problem}`);
    this.#status = saved.status;
    this.#features = BigInt(saved.features);
    this.#interruptStatus = saved.interruptStatus;
    this.#configGeneration = saved.configGeneration;
    if (saved.status & Status.featuresOk && !this.#areFeaturesRight())
      throw wrong(`features ${saved.features} are not offered`);
    if (saved.queues.length !== this.#slots.length)
      throw wrong(`it has ${saved.queues.length} queues, not ${this.#slots.length}`);
    this.#slots.forEach((slot, i) => {
      const { size, descriptorTable, availRing, usedRing, ready, ...progress } = saved.queues[i]!;
      slot.setup = {
        size,
        descriptorTable: BigInt(descriptorTable),
        availRing: BigInt(availRing),
        usedRing: BigInt(usedRing),
      };
      if (!ready) return;
      if (!isQueueSize(size, slot.largestSize)) throw wrong(`queue ${i} has a size of ${size}`);
      slot.queue.restore(slot.setup, this.#queueFeatures, { ready, ...progress });
    });
    if (saved.status & Status.needsReset) for (const { queue } of this.#slots) queue.break();
    if (saved.status & Status.driverOk) {
      this.#activate();
      this.#interrupt(InterruptBit.usedBuffer);
    }
  }

  get #queueFeatures(): QueueFeatures {
    return {
      indirect: (this.#features & Feature.indirectDesc) !== 0n,
      eventIdx: (this.#features & Feature.eventIdx) !== 0n,
    };
  }

  /** Between FEATURES_OK and DRIVER_OK (section 3.1.1). */
  get #mayConfigureQueues(): boolean {
    return (this.#status & (Status.featuresOk | Status.driverOk | Status.needsReset)) === Status.featuresOk;
  }

  #areFeaturesRight(): boolean {
    return (this.#features & Feature.version1) !== 0n && (this.#features & ~this.offeredFeatures) === 0n;
  }

  #activate(): void {
    this.#isActive = true;
    this.#device.activate(
      this.#slots.map(({ queue }) => queue),
      this.#features,
    );
  }

  #notifyAll(): void {
    for (let i = 0; i < this.#slots.length; i++) this.notify(i);
  }

  #interrupt(bit: number): void {
    this.#interruptStatus |= bit;
    this.#irq.pulse();
  }

  #reset(): void {
    this.#isResetting = true;
    for (const { queue } of this.#slots) queue.break();
    let held: { release(): void } | null = null;
    const done = (): void => {
      if (!this.#isResetting) return;
      this.#finishReset();
      held?.release();
    };
    if (this.#isActive) this.#device.reset(done);
    else done();
    if (this.#isResetting) held = this.#parts.holdAccess();
  }

  #finishReset(): void {
    this.#isResetting = false;
    this.#isActive = false;
    this.#status = 0;
    this.#features = 0n;
    this.#interruptStatus = 0;
    for (const slot of this.#slots) {
      slot.queue.clear();
      slot.setup = freshSetup(slot.largestSize);
    }
  }
}
