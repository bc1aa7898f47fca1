/**
 * The messages between the main thread and the device thread of a machine.
 *
 * Invariants:
 * - Every message can be cloned by postMessage.
 * - RAM and the machine are integer handles.
 */
import type { PlainError } from '../errors.js';
import type { BootState } from './boot/boot-state.js';
import type { DeviceConfig } from './devices/machine-devices.js';
import type { MemoryRange } from './disk/block-io.js';
import type { DisksSetup } from './disk-devices.js';
import type { RestoreClock } from './kvm/guest-time.js';
import type { MemorySlot } from './kvm/vm.js';
import type { CpuTemplate, MachineEnd } from './machine-types.js';
import type { MomentReply, MomentRequest } from './moment.js';
import type { NetSetup } from './net/net-setup.js';

/** What a machine is made of. The RAM in the slots is filled already, by the boot loader or from a snapshot. */
export interface VmSetup {
  readonly slots: readonly MemorySlot[];
  readonly cpus: number;
  /** Which devices it has. */
  readonly devices: DeviceConfig;
  /** Null: it has no disks. */
  readonly disks: DisksSetup | null;
  readonly nets: readonly NetSetup[];
  /**
   * Whether the guest's end waits for the main thread, which saves the disks first. The thread then sends `poweredOff`.
   */
  readonly holdsEnd: boolean;
  /** Where the vCPUs start: at a kernel's first instruction, or in a saved state (encoded). */
  readonly start:
    | { readonly boot: BootState; readonly cpuTemplate?: CpuTemplate | undefined }
    | { readonly state: Uint8Array; readonly clock: RestoreClock };
}

export interface DeviceThreadSetup extends VmSetup {
  /** Memory of the {@link ConsoleCounters}. */
  readonly consoleCounters: SharedArrayBuffer;
}

/** Answered by a `reply` with the same `id`, in order. */
export type DeviceRequest = { readonly id: number } & DeviceOperation;

export type DeviceOperation =
  | { readonly op: 'pause' | 'resume' | 'pressPowerButton' | 'stop' | 'thawDisks' }
  /** The moment of a save. */
  | ({ readonly op: 'moment' } & MomentRequest)
  /** Puts blocks of a disk, ascending, into the staging memory; answered when they are there. */
  | { readonly op: 'readBlocks'; readonly disk: number; readonly blocks: Uint32Array }
  /** Sets the bits of the blocks of a disk's image file that may hold data; answered when they are set. */
  | { readonly op: 'findData'; readonly disk: number; readonly bits: MemoryRange };

/** What a request returns; of `pressPowerButton`, whether the guest will notice. */
export type DeviceReply = MomentReply | boolean | undefined;

export type ToDeviceThread =
  /** The first message, sent once. */
  | { readonly op: 'begin'; readonly setup: DeviceThreadSetup }
  | DeviceRequest
  | { readonly op: 'input'; readonly bytes: Uint8Array };

/** A {@link MachineEnd} as plain data. */
export type PlainMachineEnd =
  | Exclude<MachineEnd, { kind: 'failed' }>
  | { readonly kind: 'failed'; readonly error: PlainError };

export type FromDeviceThread =
  /** The machine exists, and its vCPUs are parked. */
  | { readonly type: 'ready'; readonly machine: number }
  /** `missedBytes` of output were dropped before `bytes`. */
  | { readonly type: 'console'; readonly bytes: Uint8Array; readonly missedBytes: number }
  /** A request of the guest waits for the host. The machine must be paused; when it is resumed, the request is tried again. */
  | { readonly type: 'stalled'; readonly problem: string }
  /** The guest has ended the machine. Its vCPUs are parked, and `stop` ends the thread. */
  | { readonly type: 'poweredOff' }
  /** A line for the machine's log. */
  | { readonly type: 'log'; readonly message: string }
  | { readonly type: 'reply'; readonly id: number; readonly value?: DeviceReply; readonly error?: PlainError }
  /** The last message. */
  | { readonly type: 'end'; readonly end: PlainMachineEnd };
