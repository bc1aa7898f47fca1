/** The control API of one machine (docs/api.md): the data that the server and its clients exchange. */
import type { PlainError } from '../errors.js';
import type { MachineEnd, MachineState, SaveThen } from '../vmm/machine-types.js';

/** The answer to `GET /machine`. */
export interface MachineDescription {
  readonly name: string;
  readonly pid: number;
  readonly state: MachineState;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly snapshot: string | null;
  /** The default store of a save. */
  readonly store: string;
  readonly notices: readonly string[];
  /** Why the machine is paused, if the host failed or its disks could not be saved; else null. */
  readonly problem: string | null;
}

/** The body of `POST /save`. */
export interface SaveRequest {
  /** Absolute path of the store; null: the one that the machine was started with. */
  readonly store: string | null;
  readonly tag: string | null;
  readonly then: SaveThen | null;
}

/** How a machine ended. */
export interface EndReport {
  readonly kind: MachineEnd['kind'];
  readonly error: PlainError | null;
}

/** The trailer of `GET /console` that has the {@link EndReport}: JSON, percent-encoded. */
export const END_TRAILER = 'livesnap-end';

/** The header of `GET /console` that tells whether the guest is at the beginning (`new`) or inside (`begun`) of a line. */
export const LINE_HEADER = 'livesnap-line';
