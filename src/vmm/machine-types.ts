/** A machine as the control API and the command line see it. Class Machine implements it; tests may use a fake. */
import type { LivesnapError } from '../errors.js';
import type { Labels } from '../labels.js';
import type { Progress, SaveResult, SaveTarget } from '../page-stream.js';
import type { SavedConsole } from './console/saved-console.js';
import type { DiskConfig } from './disk/disk-config.js';
import type { NetReport } from './net/machine-nets.js';
import type { NetConfig } from './net/net-config.js';

/** Templates of guests' processors (fit/cpu-templates.ts). */
export const CPU_TEMPLATES = ['minimal', 'x86-64-v2', 'x86-64-v3'] as const;
export type CpuTemplate = (typeof CPU_TEMPLATES)[number];

export interface MachineConfig {
  /** Path of a bzImage or an ELF vmlinux. */
  readonly kernel: string;
  readonly initrd: string | null;
  /** Null: the default (`console=ttyS0 reboot=t panic=-1`). */
  readonly cmdline: string | null;
  /** A multiple of 4096. */
  readonly memoryBytes: number;
  readonly cpus: number;
  /** Whether it has a VM generation ID. Default: true; false in snapshots of earlier versions, which had none. */
  readonly vmgenid?: boolean;
  /** Whether it has the virtio entropy device. Default: true; false in snapshots of livesnap 0.1, which had none. */
  readonly rng?: boolean;
  /** Whether the guest gives free memory back to the host, by a virtio memory balloon. Default: false. */
  readonly balloon?: boolean | undefined;
  /** Default: none. */
  readonly disks?: readonly DiskConfig[];
  /** Undefined: the guest's processor has all features of the host's. */
  readonly cpuTemplate?: CpuTemplate | undefined;
  /** Default: none. */
  readonly nets?: readonly NetConfig[];
}

export type MachineState = 'running' | 'paused' | 'stopped';

/** How a machine ended: it was stopped, the guest reset it or turned it off, or it failed. */
export type MachineEnd =
  | { readonly kind: 'stopped' | 'reset' | 'halted' }
  | { readonly kind: 'failed'; readonly error: LivesnapError };

/** What a machine does after a save. */
export type SaveThen = 'resume' | 'pause' | 'stop';

export interface MachineSaveOptions {
  /** The name of the machine in the snapshot. */
  readonly vm: string;
  /** Default: none. */
  readonly labels?: Labels | undefined;
  readonly tags: readonly string[];
  readonly then: SaveThen | null;
  readonly progress?: Progress;
  /** Called at the moment of the snapshot, when all output before it was emitted. */
  readonly console?: () => SavedConsole;
  /** Cancels the save until it is committed. The save then fails with the signal's reason, and leaves nothing behind. */
  readonly signal?: AbortSignal;
}

/** Where the time of a pause went, in milliseconds. */
export interface PausePhases {
  /** Until all vCPUs were parked. */
  readonly parkMs: number;
  /** Finding what was written. */
  readonly harvestMs: number;
  /** Copying pages. */
  readonly copyMs: number;
  /** Waiting for requests of devices, beyond that. */
  readonly drainMs: number;
  /** Reading the state of vCPUs and devices. */
  readonly stateMs: number;
  /** Keeping blocks of disks, and waking the vCPUs. */
  readonly resumeMs: number;
}

export interface PauseResult {
  /** How long the vCPUs were paused; 0 if they were paused before. */
  readonly pauseMs: number;
  /** Where that time went; null if they were paused before. */
  readonly pausePhases: PausePhases | null;
}

export interface MachineSaveResult extends SaveResult, PauseResult {
  /** How much was stored during the pause; 0 unless the guest wrote faster than its memory could be stored. */
  readonly storedWhilePausedBytes: number;
  readonly saveMs: number;
}

export interface MachineEvents {
  /** Bytes that the guest wrote to its console. `missedBytes` before them were dropped, because it wrote too fast. */
  console: [bytes: Uint8Array, missedBytes: number];
  /** The machine was paused because the host failed. {@link MachineHandle.problem} says why. */
  problem: [problem: string];
  /**
   * The guest has turned the machine off or reset it, or KVM cannot run it any further, and its disks have changes that
   * are not saved. `saveDisks` saves them; then `stop` ends the machine. Without a listener it ends at once.
   */
  poweredOff: [];
  /** Once, after the last output. */
  end: [end: MachineEnd];
}

/** Opens a store, uses it and closes it. */
export type WithStore = <T>(use: (store: SaveTarget) => Promise<T>) => Promise<T>;

export interface MachineHandle {
  readonly config: MachineConfig;
  readonly state: MachineState;
  /** Null until the machine has ended. Set when the event `end` is emitted, after the last output. */
  readonly end: MachineEnd | null;
  /** The snapshot that the machine was last saved to or restored from. */
  readonly snapshot: string | null;
  /**
   * How many bytes of RAM and disks may differ from {@link snapshot}, in pages of 4 KiB. Null: there is none, or KVM
   * cannot tell. At the moment of a save it is what was counted last, or null. It takes about a millisecond for 16 GiB, on
   * this thread: the guest does not wait.
   */
  countDirtyBytes(): number | null;
  /** Why the machine is paused, if the host failed: `resume` tries again. Null otherwise. */
  readonly problem: string | null;
  /** The console of the snapshot that it was restored from; null if it has none. */
  readonly savedConsole: SavedConsole | null;
  /** Those of the snapshot that it was restored from. */
  readonly savedLabels?: Labels | undefined;
  /** What the user should know about the machine on this host, one sentence each. */
  readonly notices: readonly string[];
  /** Its networks and what they have done. */
  readonly nets: readonly NetReport[];
  on<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this;
  off<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this;
  /**
   * Sends input to the console. It is kept until the guest reads it.
   * @throws LivesnapError NOT_POSSIBLE_NOW if more than 1 MiB would wait for a guest that does not read
   */
  writeConsole(bytes: Uint8Array): void;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /**
   * Presses the power button of a running machine. False: the guest has not enabled it, so it would not notice.
   */
  pressPowerButton(): Promise<boolean>;
  /** Ends the machine and frees its memory. Resolves after `end` was emitted. */
  stop(): Promise<void>;
  /**
   * Saves the disks that have a base in a store and would end with the machine, without RAM and state. The machine is
   * paused for it and stays paused, unless that fails. Null: nothing would be lost. `withStore` opens the store only if
   * something was written, so a store that cannot be opened keeps no other machine from ending.
   */
  saveDisks(
    withStore: WithStore,
    options: { vm: string; tags: readonly string[]; progress?: Progress },
  ): Promise<SaveResult | null>;
  /** Whether {@link saveDisks} may have something to save. */
  readonly savesDisks: boolean;
  /** With `then` null the machine is afterwards as it was before: running or paused. */
  save(store: SaveTarget, options: MachineSaveOptions): Promise<MachineSaveResult>;
}
