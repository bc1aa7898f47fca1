/**
 * A virtio device for tests of what surrounds it: it answers a request with the sum of its readable bytes, but only when
 * the test says so, as a disk does.
 */
import type { DeviceState } from '../../../../src/vmm/devices/device.js';
import { deviceState } from '../../../../src/vmm/devices/device-state.js';
import type { DmaMemory } from '../../../../src/vmm/memory/guest-memory.js';
import type { Chain } from '../../../../src/vmm/virtio/descriptor-chain.js';
import type { SplitQueue } from '../../../../src/vmm/virtio/split-queue.js';
import type { VirtioDescriptor, VirtioDevice, VirtioLink } from '../../../../src/vmm/virtio/virtio-device.js';

export class SlowDevice implements VirtioDevice {
  readonly deviceType = 42;
  readonly features = 1n << 3n;
  readonly queueSizes = [64, 8];
  readonly config = Uint8Array.of(1, 2, 3, 4, 5, 6);
  readonly link: VirtioLink;
  readonly #memory: DmaMemory;
  queues: readonly SplitQueue[] = [];
  /** What was popped and not completed, with its queue. */
  readonly unfinished: { readonly queue: SplitQueue; readonly chain: Chain }[] = [];
  /** Heads in the order in which they were popped. */
  readonly popped: number[] = [];
  acceptedFeatures = 0n;
  notifications = 0;
  #resetDone: (() => void) | null = null;

  constructor(memory: DmaMemory, link: VirtioLink) {
    this.#memory = memory;
    this.link = link;
  }

  writeConfig(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.config[offset + i] = (value >>> (8 * i)) & 0xff;
  }

  activate(queues: readonly SplitQueue[], features: bigint): void {
    this.queues = queues;
    this.acceptedFeatures = features;
  }

  notify(index: number): void {
    this.notifications++;
    const queue = this.queues[index]!;
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      this.popped.push(chain.head);
      this.unfinished.push({ queue, chain });
    }
  }

  /** Completes the unfinished request at `index`, without telling the driver. */
  complete(index = 0): void {
    const [{ queue, chain }] = this.unfinished.splice(index, 1) as [(typeof this.unfinished)[0]];
    let sum = 0;
    for (const { gpa, length } of chain.readable) {
      const bytes = new Uint8Array(length);
      this.#memory.read(gpa, bytes);
      for (const byte of bytes) sum += byte;
    }
    const answer = Buffer.alloc(4);
    answer.writeUInt32LE(sum);
    const [room] = chain.writable;
    if (room) this.#memory.write(room.gpa, answer.subarray(0, Math.min(4, room.length)));
    queue.complete(chain.head, room ? Math.min(4, room.length) : 0);
    this.#endReset();
  }

  finish(index = 0): void {
    const { queue } = this.unfinished[index]!;
    this.complete(index);
    queue.flush();
  }

  reset(done: () => void): void {
    this.#resetDone = done;
    this.#endReset();
  }

  save(): DeviceState {
    return { device: 'slow', version: 1 };
  }

  #endReset(): void {
    if (this.unfinished.length > 0) return;
    this.#resetDone?.();
    this.#resetDone = null;
  }
}

/** `made` gets each device that is made. */
export const slowDevice = (made: (device: SlowDevice) => void = () => {}): VirtioDescriptor<SlowDevice> => {
  const make = (parts: { memory: DmaMemory }, link: VirtioLink): SlowDevice => {
    const device = new SlowDevice(parts.memory, link);
    made(device);
    return device;
  };
  return { name: 'slow', state: deviceState('slow', 1, {}), create: make, restore: make };
};
