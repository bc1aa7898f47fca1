/** A network device without a network: a socket stands for the tap, or for the stream of passt. */
import { readSync, writeSync } from 'node:fs';
import { closeNetPort, createNetPort, netPortFd, netSocketPair } from '../../../../src/native/net.js';
import { NetCounters } from '../../../../src/vmm/net/net-counters.js';
import { NativeNetLink } from '../../../../src/vmm/net/net-link.js';
import { virtioNet } from '../../../../src/vmm/virtio/net.js';
import type { VirtioDescriptor } from '../../../../src/vmm/virtio/virtio-device.js';
import type { VirtioRig } from './driver-twin.js';

export const MAC = '02:00:00:00:00:07';
export const HEADER = 12;

/** The link of a device with the network's end, which tests hold. */
export class FakeNetwork {
  readonly isStream: boolean;
  readonly #device: number;
  readonly #far: number;
  readonly #farFd: number;
  /** What the device set on the tap. */
  readonly offloads: number[] = [];
  readonly counters = new NetCounters(NetCounters.allocate());
  readonly link: NativeNetLink;
  #isFarOpen = true;

  constructor({ isStream = false } = {}) {
    this.isStream = isStream;
    const [near, far] = netSocketPair({ isStream });
    this.#device = createNetPort(near, { isStream });
    this.#far = createNetPort(far, { isStream });
    this.#farFd = netPortFd(this.#far);
    const { offloads } = this;
    this.link = new (class extends NativeNetLink {
      override setOffloads(flags: number): boolean {
        offloads.push(flags);
        return true;
      }
    })(this.#device, { isStream });
  }

  /** The device's port, without the device. */
  get port(): number {
    return this.#device;
  }

  descriptor({ offloads = true, isConnected = true } = {}): VirtioDescriptor {
    const { counters, link } = this;
    return virtioNet({ name: 'net0', mac: MAC, offloads, link: isConnected ? link : null, counters });
  }

  /** Puts raw bytes on the wire: for a tap a frame with its header. */
  write(bytes: Uint8Array): void {
    writeSync(this.#farFd, bytes);
  }

  /** What is on the wire: for a tap one frame with its header. Null: nothing. */
  read(): Buffer | null {
    const bytes = Buffer.alloc(200_000);
    try {
      return bytes.subarray(0, readSync(this.#farFd, bytes));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return null;
      throw error;
    }
  }

  /** Sends to the guest. `frame` has no header. */
  deliver(frame: Uint8Array, header: Uint8Array = new Uint8Array(HEADER)): void {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(frame.length);
    this.write(Buffer.concat([this.isStream ? length : header, frame]));
  }

  /** What the host would do now: calls the device while the link is ready for what it waits for. */
  run(rig: VirtioRig): void {
    for (const watch of [...rig.machine.watches]) if (watch.events.read || watch.events.write) watch.ready();
  }

  hangUp(): void {
    if (this.#isFarOpen) closeNetPort(this.#far);
    this.#isFarOpen = false;
  }

  close(): void {
    this.hangUp();
    closeNetPort(this.#device);
  }
}

/** A frame of `length` bytes whose contents follow from `tag`. */
export function frameOf(length: number, tag = 1): Buffer {
  const frame = Buffer.alloc(length);
  for (let i = 0; i < length; i++) frame[i] = (i * 7 + tag * 31) & 0xff;
  return frame;
}
