/**
 * What a kind of virtio device implements (virtio 1.2, chapter 5), and what it gets. The transport around it has the
 * status, features, queues, interrupts and the configuration generation.
 *
 * Thread: the device thread makes all calls.
 *
 * Invariants of every device:
 * - No function throws, whatever the guest does.
 * - A chain that was popped is completed once, or is still in the queue's list of chains in flight.
 * - Nothing but the queue touches a ring.
 */
import type { Check } from '../../schema.js';
import type { AccessSize, DeviceParts, DeviceState } from '../devices/device.js';
import type { SplitQueue } from './split-queue.js';

/** Device types (section 5). */
export const DeviceType = { net: 1, block: 2, entropy: 4, balloon: 5 } as const;

export interface VirtioDevice<State extends DeviceState = DeviceState> {
  readonly deviceType: number;
  /** The device's own feature bits. The transport adds VERSION_1, INDIRECT_DESC and EVENT_IDX. */
  readonly features: bigint;
  /** The largest size of each queue, a power of 2. */
  readonly queueSizes: readonly number[];
  /** The configuration space as the guest reads it; empty if the device has none. */
  readonly config: Uint8Array;
  /** The guest writes to the configuration space; the whole access lies in it. Without this, writes are ignored. */
  writeConfig?(offset: number, size: AccessSize, value: number): void;
  /**
   * The driver is ready (DRIVER_OK), or was when the device was saved. `features` are what it accepted. A queue that it
   * left out is never ready. {@link notify} follows for every ready queue.
   */
  activate(queues: readonly SplitQueue[], features: bigint): void;
  /** There may be chains in a ready queue: after a doorbell, and after each pause and restore. */
  notify(queue: number): void;
  /** The machine continues after a pause. {@link notify} follows for every ready queue. */
  resumed?(): void;
  /**
   * Returns to the state before {@link activate}. Calls `done` when nothing uses guest memory any more; chains in flight
   * are not completed.
   */
  reset(done: () => void): void;
  /** The device's own state. Chains in flight are saved by their queues, and popped again after a restore. */
  save(): State;
}

/** What a device may ask of its transport. */
export interface VirtioLink {
  /** The configuration space has changed: counts the generation up and interrupts the driver. */
  configChanged(): void;
  /** The driver broke the protocol: sets DEVICE_NEEDS_RESET. `problem` completes "the guest's driver …" in the log. */
  fail(problem: string): void;
}

/** One virtio device of a machine. */
export interface VirtioDescriptor<
  D extends VirtioDevice = VirtioDevice,
  State extends DeviceState = DeviceState,
> {
  /** Names the device within its machine and its snapshots: `rng`, `disk0`. */
  readonly name: string;
  /** The check that a saved {@link VirtioDevice.save} passes. */
  readonly state: Check<State>;
  create(parts: DeviceParts, link: VirtioLink): D;
  restore(parts: DeviceParts, link: VirtioLink, state: State): D;
}
