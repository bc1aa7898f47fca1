/** The virtio devices that the contract suite and the fuzzing exercise. A new device is one entry of {@link SUBJECTS}. */
import assert from 'node:assert/strict';
import { balloonDevice } from '../../../src/vmm/virtio/balloon.js';
import { entropyDevice } from '../../../src/vmm/virtio/rng.js';
import type { VirtioDescriptor } from '../../../src/vmm/virtio/virtio-device.js';
import type { Answer, Request, VirtioRig } from '../../unit/vmm/virtio/driver-twin.js';
import { type SlowDevice, slowDevice } from '../../unit/vmm/virtio/slow-device.js';
import { blockSubject } from './block-subject.js';
import { netSubjects } from './net-subject.js';

/** A number from 0 to n, n excluded. */
export type Below = (n: number) => number;

export interface VirtioSubject {
  readonly name: string;
  /** Makes a device with what it needs of the host; each restore asks for another one of the same device. */
  open(): OpenSubject;
}

export interface OpenSubject {
  /** The device as a new process has it. */
  descriptor(): VirtioDescriptor;
  /** Features that the driver accepts besides those of the queues. */
  readonly features: bigint;
  /** A request for queue 0. */
  request(below: Below): Request;
  /** Asserts that an answer is right. */
  check(answer: Answer): void;
  /** Lets some of the device's unfinished work go on; none of it may be done when there is none. */
  work(rig: VirtioRig, below: Below): void | Promise<void>;
  close(): void;
}

const bytesOf = (below: Below, length: number): Uint8Array =>
  Uint8Array.from({ length }, () => Math.floor(below(256)));

/** Lets timers run out. */
function expireTimers({ machine }: VirtioRig): void {
  for (const timer of machine.timers) timer.expire();
}

const rng: VirtioSubject = {
  name: 'rng',
  open: () => ({
    descriptor: () => entropyDevice,
    features: 0n,
    request: (below) => ({
      readable: [],
      writable: [1 + Math.floor(below(4096)), 1 + Math.floor(below(64))],
    }),
    check({ request, written }) {
      const room = request.writable.reduce((sum, bytes) => sum + bytes, 0);
      assert.equal(written.length, Math.min(room, 4096));
    },
    work: expireTimers,
    close() {},
  }),
};

/** Its inflate queue: the device asks for nothing, so it only takes the lists of pages. */
const balloon: VirtioSubject = {
  name: 'balloon',
  open: () => ({
    descriptor: () => balloonDevice,
    features: 1n << 5n,
    request: (below) => ({ readable: [bytesOf(below, 4 * (1 + Math.floor(below(16))))], writable: [] }),
    check({ written }) {
      assert.equal(written.length, 0);
    },
    work: expireTimers,
    close() {},
  }),
};

/** A device with requests that end late and out of order. */
const slow: VirtioSubject = {
  name: 'slow',
  open() {
    const made = new WeakMap<object, SlowDevice>();
    let last!: SlowDevice;
    return {
      descriptor: () =>
        slowDevice((device) => {
          last = device;
        }),
      features: 1n << 3n,
      request: (below) => ({
        readable: [bytesOf(below, 1 + Math.floor(below(40))), bytesOf(below, 1)],
        writable: [4 + Math.floor(below(8))],
      }),
      check({ request, written }) {
        const sum = request.readable.flatMap((bytes) => [...bytes]).reduce((total, byte) => total + byte, 0);
        assert.equal(written.readUInt32LE(), sum);
      },
      work(rig, below) {
        const device = made.get(rig) ?? last;
        made.set(rig, device);
        if (device.unfinished.length > 0) device.finish(Math.floor(below(device.unfinished.length)));
      },
      close() {},
    };
  },
};

export const SUBJECTS: readonly VirtioSubject[] = [rng, balloon, slow, blockSubject, ...netSubjects];
