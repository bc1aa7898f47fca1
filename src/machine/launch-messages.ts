/**
 * What a starter and the process of a machine tell each other, over Node's IPC channel: one {@link LaunchRequest} to the
 * process, {@link LaunchReport}s back.
 */
import type { PlainError } from '../errors.js';
import type { Labels } from '../labels.js';
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import type { RestoreClock } from '../vmm/kvm/guest-time.js';
import type { MachineConfig } from '../vmm/machine-types.js';
import type { RestoreFill } from '../vmm/memory/lazy-fill.js';
import type { NetConnection, NetRequest } from '../vmm/net/net-config.js';
import type { MachineDescription } from './control-api.js';

/**
 * The descriptor of the process on which open files arrive before the request (src/native/passed-files.ts): the lock of
 * the run directory, the log, and those of disks (passed-disks.ts).
 */
export const FILES_FD = 4;

/** The starter file, typed into the console (starter.ts). A restored machine types the lines that its snapshot has. */
export interface StarterRequest {
  /** Without line ends. Empty for a restore. */
  readonly lines: readonly string[];
  /** Source of a regular expression. Null: the default. */
  readonly prompt: string | null;
}

export interface LaunchRequest {
  readonly root: string;
  readonly name: string;
  /** Absolute path of the default store of saves. */
  readonly storeDir: string;
  /** Number 0: the system chooses. Requests there need the token. */
  readonly port: { readonly number: number; readonly token: string } | null;
  /** Absolute path of the directory for what the machine writes to its disks. Null: that of the store. */
  readonly overlayDir: string | null;
  readonly starter: StarterRequest;
  /** Default: none; those of the snapshot for a restore. */
  readonly labels?: Labels;
  /** The machine ends after this time. Null: it has no end. */
  readonly lifetimeMs?: number | null;
  readonly origin:
    | {
        readonly kind: 'start';
        readonly config: MachineConfig;
        /** A descriptor here is the number of the file among those of disks that came before the request. */
        readonly disks: readonly DiskRequest[];
        readonly nets?: readonly NetRequest[];
      }
    /** `from`: absolute path of the store to read. It differs from `storeDir` for an exported directory. */
    | {
        readonly kind: 'restore';
        readonly from: string;
        readonly snapshot: string;
        readonly clock: RestoreClock;
        readonly nets?: readonly NetConnection[];
        /** A clone beside the original. */
        readonly asNew?: boolean;
        /** Default: `auto`. */
        readonly fill?: RestoreFill;
      };
}

export type LaunchReport =
  | { readonly progress: { readonly doneBytes: number; readonly totalBytes: number | null } }
  | { readonly ready: MachineDescription }
  | { readonly error: PlainError };
