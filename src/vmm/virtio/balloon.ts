/**
 * The memory balloon: virtio 1.2, section 5.5. Of its parts only the reporting of free pages does something: the guest
 * names pages that it does not use, and the device gives them back to the host.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - A page that is given back is zero, and the next save includes it as zero.
 * - The device never asks for memory: `num_pages` is 0.
 * - In one turn the device gives back at most {@link TURN_BYTES} and one request more, so that a guest cannot keep the
 *   device thread busy. What is left of the requests waits for the next turn.
 * - A request is completed before the next one is popped, so none is ever saved.
 */
import { integer } from '../../schema.js';
import type { AccessSize, DeviceParts, DeviceState, Timer } from '../devices/device.js';
import { deviceState } from '../devices/device-state.js';
import type { DmaMemory } from '../memory/guest-memory.js';
import type { SplitQueue } from './split-queue.js';
import { DeviceType, type VirtioDescriptor, type VirtioDevice } from './virtio-device.js';

/** VIRTIO_BALLOON_F_PAGE_REPORTING */
const PAGE_REPORTING = 1n << 5n;
/**
 * The inflate and the deflate queue, then the reporting queue: drivers number the queues of features that were not offered
 * (statistics, hints) not at all.
 */
const QUEUE_SIZES = [64, 64, 64];
const REPORTING_QUEUE = 2;
/** num_pages, which the device writes, and actual, which the driver writes. */
const CONFIG_BYTES = 8;
const ACTUAL_OFFSET = 4;
const TURN_BYTES = 64 << 20;
/** What a request counts at least: reading its descriptors takes time as well. */
const LEAST_BYTES = 1 << 20;

const DEVICE = 'virtio-balloon';
const VERSION = 1;

export interface BalloonState extends DeviceState {
  /** How many pages the driver says that it has given up. */
  readonly actual: number;
}

const STATE = deviceState<BalloonState>(DEVICE, VERSION, { actual: integer(0, 0xffff_ffff) });

export class VirtioBalloon implements VirtioDevice<BalloonState> {
  readonly deviceType = DeviceType.balloon;
  readonly features = PAGE_REPORTING;
  readonly queueSizes = QUEUE_SIZES;
  readonly config = new Uint8Array(CONFIG_BYTES);
  readonly #memory: DmaMemory;
  readonly #turn: Timer;
  #queues: readonly SplitQueue[] = [];

  constructor(parts: Pick<DeviceParts, 'memory' | 'timer'>, { actual }: Pick<BalloonState, 'actual'>) {
    this.#memory = parts.memory;
    this.#turn = parts.timer(() => this.#serve());
    new DataView(this.config.buffer).setUint32(ACTUAL_OFFSET, actual, true);
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    for (let i = 0; i < size; i++)
      if (offset + i >= ACTUAL_OFFSET) this.config[offset + i] = (value >>> (8 * i)) & 0xff;
  }

  activate(queues: readonly SplitQueue[]): void {
    this.#queues = queues;
  }

  notify(): void {
    this.#serve();
  }

  reset(done: () => void): void {
    this.#queues = [];
    this.#turn.set(null);
    this.config.fill(0, ACTUAL_OFFSET);
    done();
  }

  save(): BalloonState {
    const actual = new DataView(this.config.buffer).getUint32(ACTUAL_OFFSET, true);
    return { device: DEVICE, version: VERSION, actual };
  }

  #serve(): void {
    let left = TURN_BYTES;
    this.#queues.forEach((queue, index) => {
      if (!queue.isReady) return;
      while (left > 0) {
        const chain = queue.pop();
        if (chain === null) break;
        // The buffers of the other queues list pages. Nothing was asked for, so nothing is done with them.
        const free = index === REPORTING_QUEUE ? chain.writable : [];
        for (const { gpa, length } of free) this.#memory.discard(gpa, length);
        left -= Math.max(
          LEAST_BYTES,
          free.reduce((sum, { length }) => sum + length, 0),
        );
        queue.complete(chain.head, 0);
      }
      queue.flush();
    });
    if (left <= 0) this.#turn.set(0);
  }
}

export const balloonDevice: VirtioDescriptor<VirtioBalloon, BalloonState> = {
  name: 'balloon',
  state: STATE,
  create: (parts) => new VirtioBalloon(parts, { actual: 0 }),
  restore: (parts, _link, state) => new VirtioBalloon(parts, state),
};
