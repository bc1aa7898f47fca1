/**
 * The public face of a machine, as the control API and the command line see it. Class Machine (machine.ts)
 * implements it on KVM; tests of the layers above may use a fake.
 */
import type { LivesnapError } from '../errors.js';
import type { Progress, SaveResult, SaveTarget } from '../page-stream.js';

export interface MachineConfig {
  /** Path of a bzImage or an ELF vmlinux. */
  readonly kernel: string;
  readonly initrd: string | null;
  /** Null: the default (`console=ttyS0 reboot=t panic=-1`). */
  readonly cmdline: string | null;
  /** A multiple of 4096. */
  readonly memoryBytes: number;
  readonly cpus: number;
}

export type MachineState = 'running' | 'paused' | 'stopped';

/** Why a machine is no more: it was stopped from outside, the guest reset or halted it, or it could not go on. */
export type MachineEnd =
  | { readonly kind: 'stopped' | 'reset' | 'halted' }
  | { readonly kind: 'failed'; readonly error: LivesnapError };

export type SaveThen = 'resume' | 'pause' | 'stop';

export interface MachineSaveResult extends SaveResult {
  /** How long the vCPUs stood still. */
  readonly pauseMs: number;
  /** How much was stored meanwhile; 0 unless the guest wrote faster than its memory could be stored. */
  readonly storedWhilePausedBytes: number;
  readonly saveMs: number;
}

export interface MachineEvents {
  /** Bytes the guest wrote to its first serial port; `missedBytes` before them were dropped: it wrote too fast. */
  console: [bytes: Uint8Array, missedBytes: number];
  /** Once, after the last output. */
  end: [end: MachineEnd];
}

export interface MachineHandle {
  readonly config: MachineConfig;
  readonly state: MachineState;
  /** How it ended; null: it has not. Set when the event `end` is emitted, and never before the last output. */
  readonly end: MachineEnd | null;
  /** The snapshot this machine was last saved to or restored from. */
  readonly snapshot: string | null;
  /** What the host made necessary (one sentence each), to be said once on stderr. */
  readonly notices: readonly string[];
  on<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this;
  off<K extends keyof MachineEvents>(event: K, listener: (...args: MachineEvents[K]) => void): this;
  /**
   * Bytes for the first serial port; kept until the guest reads them.
   * @throws LivesnapError NOT_POSSIBLE_NOW when more than 1 MiB would wait for a guest that does not read
   */
  writeConsole(bytes: Uint8Array): void;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Ends the machine and frees what it holds; `end` is emitted before it resolves. */
  stop(): Promise<void>;
  /** `then` null: afterwards as it was before. */
  save(
    store: SaveTarget,
    options: { vm: string; tag: string | null; then: SaveThen | null; progress?: Progress },
  ): Promise<MachineSaveResult>;
}
