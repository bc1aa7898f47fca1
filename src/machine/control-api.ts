/** The control API of one machine (docs/api.md): the data that the server and its clients exchange. */
import type { PlainError } from '../errors.js';
import type { Labels } from '../labels.js';
import type { MachineEnd, MachineSaveResult, MachineState, SaveThen } from '../vmm/machine-types.js';
import type { NetReport } from '../vmm/net/machine-nets.js';

/** The answer to `GET /machine`. */
export interface MachineDescription {
  /** 32 lower-case hexadecimal digits, drawn when the machine is started or restored. It never changes. */
  readonly id: string;
  readonly name: string;
  readonly labels: Labels;
  readonly pid: number;
  readonly state: MachineState;
  readonly memoryBytes: number;
  /** Of the guest's memory, what the host has given so far. */
  readonly touchedBytes: number;
  readonly cpus: number;
  /** Processor time of the machine's process. */
  readonly cpuSeconds: number;
  /** Of RAM and disks, what may differ from `snapshot`. Null: there is none, or KVM cannot tell. */
  readonly dirtyBytes: number | null;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** When its lifetime ends; null: it has no end. ISO 8601, UTC. */
  readonly endsAt: string | null;
  readonly snapshot: string | null;
  /** The default store of a save. */
  readonly store: string;
  readonly notices: readonly string[];
  readonly nets: readonly NetReport[];
  /** Why the machine is paused, if the host failed or its disks could not be saved; else null. */
  readonly problem: string | null;
  /** How far its disks are saved, which it does before it ends. Null: it does not save them now. */
  readonly diskSave: { readonly doneBytes: number; readonly totalBytes: number | null } | null;
  /** Its saves that run, and the last ones that have ended, by age. */
  readonly saves: readonly SaveJob[];
}

/** The body of `PATCH /machine`. A field that is missing is left as it is. */
export interface MachineChange {
  /** All labels from now on. */
  readonly labels?: Labels | undefined;
  /** The machine ends after this time from now; null: it has no end. */
  readonly lifetimeMs?: number | null | undefined;
}

/** The body of `POST /save`. */
export interface SaveRequest {
  /** Absolute path of the store; null: the one that the machine was started with. */
  readonly store: string | null;
  /** The tags that the snapshot gets. */
  readonly tags: readonly string[];
  readonly then: SaveThen | null;
}

/** A save as others see it. */
export interface SaveJob {
  /** Of the saves of this machine since it was started or restored. */
  readonly number: number;
  /** `running`: it may wait for other operations. */
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  readonly tags: readonly string[];
  readonly then: SaveThen | null;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly endedAt: string | null;
  /** Null: nothing is done yet. */
  readonly progress: { readonly doneBytes: number; readonly totalBytes: number | null } | null;
  readonly result: MachineSaveResult | null;
  readonly error: PlainError | null;
}

/** The header of `POST /save` with which the answer comes at once, 202 and the {@link SaveJob} (RFC 7240, section 4.1). */
export const PREFER_ASYNC = { prefer: 'respond-async' } as const;

/** How long a guest may take to power off, unless the request says otherwise. */
export const STOP_TIMEOUT_MS = 10_000;
/** A day. A timer takes 24 of them. */
export const MAX_STOP_TIMEOUT_MS = 86_400_000;

/** The body of `POST /stop`. */
export interface StopRequest {
  /** End the machine at once, without asking the guest. */
  readonly force: boolean;
  /** Do not save what was written to disks that end with the machine. */
  readonly discard: boolean;
  /** How long the guest may take to power off before the machine is ended. */
  readonly timeoutMs: number;
}

/** The answer to `POST /stop`. */
export interface StopResult {
  readonly name: string;
  readonly state: 'stopped';
  /** `poweredOff`: the guest did it. `ended`: the machine was ended under the guest. */
  readonly how: 'poweredOff' | 'ended';
  /** Why it was ended under the guest. Null: it powered off, or was ending already. */
  readonly reason: 'forced' | 'noPowerButton' | 'timedOut' | 'starting' | null;
  /** Saves in progress that could not be completed. */
  readonly lostSaves: number;
}

/** How a machine ended. */
export interface EndReport {
  readonly kind: MachineEnd['kind'];
  readonly error: PlainError | null;
}

/** The trailer of `GET /console` that has the {@link EndReport}: JSON, percent-encoded. */
export const END_TRAILER = 'livesnap-end';

/** The header of a request that has the ID of the machine that is meant. Another machine refuses it (MACHINE_GONE). */
export const ID_HEADER = 'livesnap-machine';

/** The header of `GET /console` that has the number of bytes of past output that come first. */
export const HISTORY_HEADER = 'livesnap-history';

/** The header of `GET /console` that tells whether the guest is at the beginning (`new`) or inside (`begun`) of a line. */
export const LINE_HEADER = 'livesnap-line';
