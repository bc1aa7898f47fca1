/**
 * What the main thread and a machine's device thread say to each other. Everything is structured-cloneable; RAM and
 * the machine cross as integer handles.
 */
import type { PlainError } from '../errors.js';
import type { BootState } from './boot/boot-state.js';
import type { MemorySlot } from './kvm/vm.js';

/** What the machine is made of: RAM is filled, by the loader or from a snapshot. */
export interface MachineParts {
  readonly slots: readonly MemorySlot[];
  readonly cpus: number;
  /** How the machine begins: in a kernel's first instruction, or in a saved state (encoded). */
  readonly begin: { readonly boot: BootState } | { readonly state: Uint8Array };
}

/** What the device thread is given to begin with. */
export interface DeviceThreadParts extends MachineParts {
  /** Memory of the {@link ConsoleCounters}. */
  readonly consoleCounters: SharedArrayBuffer;
}

/** Requests are answered in order by a `reply` with their `id`. */
export type Request = { readonly id: number } & (
  | { readonly op: 'pause' | 'resume' | 'saveState' }
  | { readonly op: 'stop'; readonly end: 'stopped' }
);

export type ToDeviceThread =
  /** First, and once. */
  | { readonly op: 'begin'; readonly parts: DeviceThreadParts }
  | Request
  | { readonly op: 'input'; readonly bytes: Uint8Array };

export type PlainEnd =
  | { readonly kind: 'stopped' | 'reset' | 'halted' }
  | { readonly kind: 'failed'; readonly error: PlainError };

export type FromDeviceThread =
  /** The machine exists, its vCPUs are parked. */
  | { readonly type: 'ready'; readonly machine: number }
  /** `missedBytes` of output were dropped before these. */
  | { readonly type: 'console'; readonly bytes: Uint8Array; readonly missedBytes: number }
  /** Worth a line in the machine's log. */
  | { readonly type: 'log'; readonly message: string }
  | { readonly type: 'reply'; readonly id: number; readonly state?: Uint8Array; readonly error?: PlainError }
  | { readonly type: 'end'; readonly end: PlainEnd };
