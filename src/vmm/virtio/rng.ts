/**
 * The entropy device: virtio 1.2, section 5.4. Its bytes are the host's (getrandom(2)).
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - A request gets at least 1 byte and at most {@link REQUEST_BYTES}; the driver asks again for more.
 * - In {@link PERIOD_MS} the device gives at most {@link PERIOD_BYTES}, so that a guest cannot keep the device thread
 *   busy. What is left of the requests waits for the next period.
 * - A request is completed before the next one is popped, so none is ever saved.
 */
import type { DeviceParts, DeviceState, Timer } from '../devices/device.js';
import { deviceState } from '../devices/device-state.js';
import type { DmaMemory } from '../memory/guest-memory.js';
import type { Chain } from './descriptor-chain.js';
import type { SplitQueue } from './split-queue.js';
import { DeviceType, type VirtioDescriptor, type VirtioDevice } from './virtio-device.js';

const QUEUE_SIZE = 64;
const REQUEST_BYTES = 4096;
const PERIOD_MS = 10;
const PERIOD_BYTES = 64 * 1024;
/** What a buffer counts at least: reading its descriptor takes time as well. */
const LEAST_BYTES = 64;

const DEVICE = 'virtio-rng';
const VERSION = 1;
const STATE = deviceState<DeviceState>(DEVICE, VERSION, {});

export class VirtioRng implements VirtioDevice {
  readonly deviceType = DeviceType.entropy;
  readonly features = 0n;
  readonly queueSizes = [QUEUE_SIZE];
  readonly config = new Uint8Array(0);
  readonly #memory: DmaMemory;
  readonly #period: Timer;
  #queue: SplitQueue | null = null;
  /** What may be given before the period ends. */
  #leftBytes = PERIOD_BYTES;

  constructor(parts: Pick<DeviceParts, 'memory' | 'timer'>) {
    this.#memory = parts.memory;
    this.#period = parts.timer(() => {
      this.#leftBytes = PERIOD_BYTES;
      this.#serve();
    });
  }

  activate([queue]: readonly SplitQueue[]): void {
    this.#queue = queue!;
  }

  notify(): void {
    this.#serve();
  }

  reset(done: () => void): void {
    this.#queue = null;
    done();
  }

  save(): DeviceState {
    return { device: DEVICE, version: VERSION };
  }

  #serve(): void {
    const queue = this.#queue;
    if (queue === null) return;
    const before = this.#leftBytes;
    while (this.#leftBytes > 0) {
      const chain = queue.pop();
      if (chain === null) break;
      queue.complete(chain.head, this.#fill(chain));
    }
    queue.flush();
    // The period begins with its first request.
    if (before === PERIOD_BYTES && this.#leftBytes < before) this.#period.set(PERIOD_MS);
  }

  /** Returns how many bytes it wrote. Readable buffers, which a driver may not offer, count but are not looked at. */
  #fill({ readable, writable }: Chain): number {
    let written = 0;
    for (const { gpa, length } of writable) {
      const bytes = Math.min(length, REQUEST_BYTES - written);
      if (bytes === 0) break;
      this.#memory.fillRandom(gpa, bytes);
      written += bytes;
    }
    this.#leftBytes -= Math.max(written, LEAST_BYTES * (readable.length + writable.length));
    return written;
  }
}

export const entropyDevice: VirtioDescriptor<VirtioRng> = {
  name: 'rng',
  state: STATE,
  create: (parts) => new VirtioRng(parts),
  restore: (parts) => new VirtioRng(parts),
};
