/**
 * The guest's side of a virtio device, without a guest: a driver of virtio-mmio and split queues on plain memory. Like a
 * real driver it looks at the used ring after an interrupt only, and rings the doorbell only when the device asks for it.
 *
 * {@link VirtioRig} is the machine around a device. Doorbells and pulses are on their way until they are delivered, and a
 * save loses those, as KVM does.
 */
import assert from 'node:assert/strict';
import { parse } from '../../../../src/schema.js';
import type { Device, DeviceState } from '../../../../src/vmm/devices/device.js';
import type { DmaMemory } from '../../../../src/vmm/memory/guest-memory.js';
import { Register, virtioMmio } from '../../../../src/vmm/virtio/mmio-transport.js';
import type { VirtioDescriptor } from '../../../../src/vmm/virtio/virtio-device.js';
import { virtioWindows } from '../../../../src/vmm/virtio/windows.js';
import { FakeMachine } from '../devices/fakes.js';
import { PlainRam } from './plain-ram.js';

const WINDOW = virtioWindows(1)[0]!;
export const RAM_BYTES = 8 << 20;
const RINGS_GPA = 0x10_0000;
/** Space for the rings of one queue. */
const QUEUE_STRIDE = 0x1_0000;
const BUFFERS_GPA = 0x20_0000;
const CELL_BYTES = 0x1000;

/** The machine around one virtio device. */
export class VirtioRig {
  readonly descriptor: VirtioDescriptor;
  readonly ram: PlainRam;
  readonly machine: FakeMachine;
  readonly device: Device;
  /** Queues whose doorbells were rung and not heard. */
  readonly #rung: number[] = [];
  #pulsesSeen = 0;

  private constructor(
    descriptor: VirtioDescriptor,
    ram: PlainRam,
    state: DeviceState | null,
    memory: DmaMemory = ram.ram,
  ) {
    this.descriptor = descriptor;
    this.ram = ram;
    this.machine = new FakeMachine(memory);
    const described = virtioMmio(descriptor, WINDOW);
    this.device =
      state === null
        ? described.create(this.machine)
        : described.restore(
            this.machine,
            parse(described.state, state, (wrong) => wrong),
          );
  }

  /** A machine that runs. `memory` is what the device sees of the RAM. */
  static start(
    descriptor: VirtioDescriptor,
    ram = new PlainRam([{ gpa: 0, sizeBytes: RAM_BYTES }]),
    memory: DmaMemory = ram.ram,
  ): VirtioRig {
    const rig = new VirtioRig(descriptor, ram, null, memory);
    rig.resume();
    return rig;
  }

  /**
   * A paused machine with this state. `descriptor` may be that of another process; `memory` makes what the device sees
   * of the RAM.
   */
  static restore(
    saved: SavedRig,
    descriptor = saved.descriptor,
    memory: (ram: PlainRam) => DmaMemory = ({ ram }) => ram,
  ): VirtioRig {
    const ram = saved.ram.copy();
    return new VirtioRig(descriptor, ram, saved.state, memory(ram));
  }

  read(register: number, size: 1 | 2 | 4 = 4): number {
    return this.device.read(register, size);
  }

  write(register: number, value: number, size: 1 | 2 | 4 = 4): void {
    this.device.write(register, size, value);
  }

  ring(queue: number): void {
    if (!this.#rung.includes(queue)) this.#rung.push(queue);
  }

  /** Delivers the doorbells. */
  hear(): void {
    for (const queue of this.#rung.splice(0))
      this.machine.doorbells.find((each) => each.queue === queue)?.rung();
  }

  /** Whether the interrupt was pulsed since the last call. */
  takeInterrupt(): boolean {
    const pulses = this.machine.pulses.get(WINDOW.gsi) ?? 0;
    const isNew = pulses > this.#pulsesSeen;
    this.#pulsesSeen = pulses;
    return isNew;
  }

  pause(): void {
    this.device.pausable!.suspend();
    this.device.pausable!.freeze();
  }

  resume(): void {
    this.device.pausable!.resume();
  }

  /** The paused machine as it is in a snapshot. Free its `ram` afterwards. */
  save(): SavedRig {
    return {
      descriptor: this.descriptor,
      ram: this.ram.copy(),
      state: JSON.parse(JSON.stringify(this.device.save())),
    };
  }

  close(): void {
    this.ram.close();
  }
}

export interface SavedRig {
  readonly descriptor: VirtioDescriptor;
  readonly ram: PlainRam;
  readonly state: DeviceState;
}

/** What a driver asks of a device: bytes for it to read, then room for its answer. */
export interface Request {
  readonly readable: readonly Uint8Array[];
  readonly writable: readonly number[];
}

interface Offered {
  readonly request: Request;
  readonly cells: readonly number[];
  readonly descriptors: readonly number[];
  readonly writableGpas: readonly number[];
}

/** A used entry. */
export interface Answer {
  readonly head: number;
  readonly request: Request;
  /** The bytes that the device says it has written. */
  readonly written: Buffer;
}

export interface DriverOptions {
  readonly eventIdx?: boolean;
  readonly indirect?: boolean;
  readonly queueSize?: number;
}

/** A driver of one device. It outlives the machine that it runs in: after a restore it is given the new one. */
export class DriverTwin {
  #rig: VirtioRig;
  readonly queues: TwinQueue[] = [];
  readonly options: Required<DriverOptions>;

  constructor(rig: VirtioRig, { eventIdx = true, indirect = true, queueSize = 16 }: DriverOptions = {}) {
    this.#rig = rig;
    this.options = { eventIdx, indirect, queueSize };
  }

  get rig(): VirtioRig {
    return this.#rig;
  }

  /** The driver's memory is in RAM, so it goes on in a restored machine. */
  moveTo(rig: VirtioRig): void {
    this.#rig = rig;
  }

  /** Section 3.1.1. `features`: bits of the device that the driver accepts besides its own. */
  start(features = 0n): void {
    const rig = this.#rig;
    rig.write(Register.status, 0);
    rig.write(Register.status, 1);
    rig.write(Register.status, 3);
    const wanted =
      features |
      (1n << 32n) |
      (this.options.eventIdx ? 1n << 29n : 0n) |
      (this.options.indirect ? 1n << 28n : 0n);
    for (const word of [0, 1]) {
      rig.write(Register.driverFeaturesSel, word);
      rig.write(Register.driverFeatures, Number((wanted >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    rig.write(Register.status, 11);
    assert.equal(rig.read(Register.status), 11, 'the device accepts the features');
    this.queues.length = 0;
    for (let index = 0; ; index++) {
      rig.write(Register.queueSel, index);
      const largest = rig.read(Register.queueNumMax);
      if (largest === 0) break;
      const queue = new TwinQueue(this, index, Math.min(largest, this.options.queueSize));
      queue.configure();
      this.queues.push(queue);
    }
    rig.write(Register.status, 15);
  }

  /** Offers a request and rings the doorbell if the device wants that. Returns the head. */
  send(request: Request, index = 0): number {
    const queue = this.queues[index]!;
    const head = queue.offer(request);
    queue.kick();
    return head;
  }

  /** What the driver does when it is interrupted; nothing, if it is not. */
  collect(): Answer[] {
    if (!this.#rig.takeInterrupt()) return [];
    const bits = this.#rig.read(Register.interruptStatus);
    this.#rig.write(Register.interruptAck, bits);
    return bits & 1 ? this.queues.flatMap((queue) => queue.collect()) : [];
  }
}

/** The driver's side of one split queue. */
export class TwinQueue {
  readonly size: number;
  readonly #driver: DriverTwin;
  readonly #index: number;
  readonly descriptorTable: number;
  readonly availRing: number;
  readonly usedRing: number;
  readonly #freeDescriptors: number[];
  readonly #freeCells: number[];
  readonly #offered = new Map<number, Offered>();
  #availIndex = 0;
  #kickedIndex = 0;
  #lastUsed = 0;

  constructor(driver: DriverTwin, index: number, size: number) {
    this.#driver = driver;
    this.#index = index;
    this.size = size;
    this.descriptorTable = RINGS_GPA + index * QUEUE_STRIDE;
    this.availRing = this.descriptorTable + 0x8000;
    this.usedRing = this.descriptorTable + 0xa000;
    this.#freeDescriptors = Array.from({ length: size }, (_, i) => size - 1 - i);
    const cells = 512;
    this.#freeCells = Array.from({ length: cells }, (_, i) => BUFFERS_GPA + (index * cells + i) * CELL_BYTES);
  }

  /** Heads that were offered and not answered. */
  get waiting(): readonly number[] {
    return [...this.#offered.keys()];
  }

  get canOffer(): boolean {
    return this.#freeDescriptors.length >= 4 && this.#freeCells.length >= 16;
  }

  configure(): void {
    const { rig } = this.#driver;
    rig.ram.ram.write(this.descriptorTable, new Uint8Array(QUEUE_STRIDE));
    rig.write(Register.queueSel, this.#index);
    rig.write(Register.queueNum, this.size);
    rig.write(Register.queueDescLow, this.descriptorTable);
    rig.write(Register.queueDriverLow, this.availRing);
    rig.write(Register.queueDeviceLow, this.usedRing);
    rig.write(Register.queueReady, 1);
    assert.equal(rig.read(Register.queueReady), 1);
  }

  /** Makes a chain available, through an indirect table if that was negotiated and there is more than one buffer. */
  offer(request: Request): number {
    const { ram } = this.#driver.rig.ram;
    const cells: number[] = [];
    const buffer = (length: number): number => {
      assert(length <= CELL_BYTES);
      cells.push(this.#freeCells.pop()!);
      return cells.at(-1)!;
    };
    const buffers: { gpa: number; length: number; flags: number }[] = [];
    for (const bytes of request.readable) {
      const gpa = buffer(bytes.length);
      ram.write(gpa, bytes);
      buffers.push({ gpa, length: bytes.length, flags: 0 });
    }
    const writableGpas = request.writable.map((length) => {
      const gpa = buffer(length);
      ram.write(gpa, new Uint8Array(length));
      buffers.push({ gpa, length, flags: 2 });
      return gpa;
    });
    const isIndirect = this.#driver.options.indirect && buffers.length > 1;
    const descriptors = (isIndirect ? [0] : buffers).map(() => this.#freeDescriptors.pop()!);
    const entry = (gpa: number, length: number, flags: number, next: number): Buffer => {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64LE(BigInt(gpa), 0);
      bytes.writeUInt32LE(length, 8);
      bytes.writeUInt16LE(flags, 12);
      bytes.writeUInt16LE(next, 14);
      return bytes;
    };
    const chained = (next: readonly number[]): Buffer[] =>
      buffers.map(({ gpa, length, flags }, i) =>
        entry(gpa, length, i + 1 < buffers.length ? flags | 1 : flags, next[i + 1] ?? 0),
      );
    if (isIndirect) {
      const table = Buffer.concat(chained(buffers.map((_, i) => i)));
      const gpa = buffer(table.length);
      ram.write(gpa, table);
      ram.write(this.descriptorTable + descriptors[0]! * 16, entry(gpa, table.length, 4, 0));
    } else {
      chained(descriptors).forEach((bytes, i) => {
        ram.write(this.descriptorTable + descriptors[i]! * 16, bytes);
      });
    }
    const head = descriptors[0]!;
    this.#offered.set(head, { request, cells, descriptors, writableGpas });
    this.makeAvailable(head);
    return head;
  }

  /** Puts a head into the avail ring, whatever it is. */
  makeAvailable(head: number): void {
    const { ram } = this.#driver.rig.ram;
    ram.store16(this.availRing + 4 + (this.#availIndex % this.size) * 2, head);
    this.#availIndex = (this.#availIndex + 1) & 0xffff;
    ram.store16(this.availRing + 2, this.#availIndex);
  }

  /** Rings the doorbell if the device wants to know of what was offered since the last call. */
  kick(): void {
    if (this.wantsKick()) this.#driver.rig.ring(this.#index);
    this.#kickedIndex = this.#availIndex;
  }

  wantsKick(): boolean {
    const { ram } = this.#driver.rig.ram;
    if (!this.#driver.options.eventIdx) return (ram.load16(this.usedRing) & 1) === 0;
    const event = ram.load16(this.usedRing + 4 + this.size * 8);
    const passed = (this.#availIndex - event - 1) & 0xffff;
    return passed < ((this.#availIndex - this.#kickedIndex) & 0xffff);
  }

  /** Takes the answers, and asks for an interrupt at the next one. */
  collect(): Answer[] {
    const { ram } = this.#driver.rig.ram;
    const answers: Answer[] = [];
    const usedIndex = (): number => ram.load16(this.usedRing + 2);
    while (usedIndex() !== this.#lastUsed) {
      const entry = this.#driver.rig.ram.bytes(this.usedRing + 4 + (this.#lastUsed % this.size) * 8, 8);
      this.#lastUsed = (this.#lastUsed + 1) & 0xffff;
      answers.push(this.#answer(entry.readUInt32LE(0), entry.readUInt32LE(4)));
      if (this.#driver.options.eventIdx) ram.store16(this.availRing + 4 + this.size * 2, this.#lastUsed);
    }
    return answers;
  }

  #answer(head: number, length: number): Answer {
    const offered = this.#offered.get(head);
    assert(offered, `the device answered ${head}, which was not offered or was answered before`);
    const room = offered.request.writable.reduce((sum, bytes) => sum + bytes, 0);
    assert(length <= room, `the device wrote ${length} of ${room} bytes`);
    const all = Buffer.concat(
      offered.writableGpas.map((gpa, i) => this.#driver.rig.ram.bytes(gpa, offered.request.writable[i]!)),
    );
    this.#offered.delete(head);
    this.#freeDescriptors.push(...offered.descriptors);
    this.#freeCells.push(...offered.cells);
    return { head, request: offered.request, written: all.subarray(0, length) };
  }
}
