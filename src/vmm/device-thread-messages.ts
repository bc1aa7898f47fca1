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
import type { RestoreClock } from './kvm/guest-time.js';
import type { MemorySlot } from './kvm/vm.js';
import type { CpuTemplate, MachineEnd } from './machine-types.js';

/** What a machine is made of. The RAM in the slots is filled already, by the boot loader or from a snapshot. */
export interface VmSetup {
  readonly slots: readonly MemorySlot[];
  readonly cpus: number;
  /** Which devices it has. */
  readonly devices: DeviceConfig;
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
export interface DeviceRequest {
  readonly id: number;
  readonly op: 'pause' | 'resume' | 'saveState' | 'stop';
}

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
  /** A line for the machine's log. */
  | { readonly type: 'log'; readonly message: string }
  | { readonly type: 'reply'; readonly id: number; readonly state?: Uint8Array; readonly error?: PlainError }
  /** The last message. */
  | { readonly type: 'end'; readonly end: PlainMachineEnd };
