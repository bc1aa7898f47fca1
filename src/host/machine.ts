/**
 * A machine of this host. It runs in a process of its own, so it goes on when this program ends, unless this object
 * started it and is disposed of.
 *
 * Invariant: the object is of one machine, not of a name. If another machine has the name now, calls fail with
 * MACHINE_GONE.
 */
import { LivesnapError } from '../errors.js';
import { type Labels, requireLabels } from '../labels.js';
import { MachineClient } from '../machine/client.js';
import {
  type EndReport,
  MAX_STOP_TIMEOUT_MS,
  type MachineDescription,
  STOP_TIMEOUT_MS,
} from '../machine/control-api.js';
import type { RunDirectory } from '../machine/run-directory.js';
import { unlessAborted } from '../unless-aborted.js';
import type { MachineSaveResult, MachineState, SaveThen } from '../vmm/machine-types.js';
import { requireTimeout } from './arguments.js';
import { type CallOptions, type LongCallOptions, waitingFor } from './call-options.js';
import { Console, type ConsoleOptions } from './console.js';
import { requireLifetime } from './machine-options.js';
import { type Stopped, stopMachine } from './stop-machine.js';

/** How long the process of a machine that has ended may take to end. */
const PROCESS_END_TIMEOUT_MS = 30_000;

export interface SaveOptions extends LongCallOptions {
  /** A tag that another snapshot has moves to this one. */
  readonly tags?: readonly string[] | undefined;
  /** What the machine does after the save. Default: as before. */
  readonly then?: SaveThen | undefined;
  /** Absolute path of the store. Default: the one that the machine was started with. */
  readonly store?: string | undefined;
}

export interface StopOptions extends LongCallOptions {
  /** Do not ask the guest to power off. */
  readonly force?: boolean | undefined;
  /** Do not save disks that came from a snapshot. */
  readonly discard?: boolean | undefined;
  /** How long the guest may take to power off. Default: 10 s. */
  readonly timeoutMs?: number | undefined;
}

export class Machine implements AsyncDisposable {
  readonly id: string;
  readonly name: string;
  /** The machine as it was when this object was made. */
  readonly about: MachineDescription;
  /** For livesnap's own use. */
  readonly client: MachineClient;
  /** Lets the machine's process end without its starter. Null: this object did not start it. */
  #letGo: (() => void) | null;

  /** `letGo`: what `launch` has returned, where this object starts the machine. */
  constructor(directory: RunDirectory, about: MachineDescription, letGo: (() => void) | null) {
    this.id = about.id;
    this.about = about;
    this.name = directory.name;
    this.client = new MachineClient(directory, about.id);
    this.#letGo = letGo;
  }

  /** Errors: MACHINE_GONE, NOT_POSSIBLE_NOW (its process does not answer). */
  info(options: CallOptions = {}): Promise<MachineDescription> {
    return waitingFor(options, () => this.client.describe());
  }

  /** Resolves to the state when no vCPU runs. Errors: MACHINE_GONE, NOT_POSSIBLE_NOW. */
  async pause(options: CallOptions = {}): Promise<MachineState> {
    return (await waitingFor(options, () => this.client.pause())).state;
  }

  async resume(options: CallOptions = {}): Promise<MachineState> {
    return (await waitingFor(options, () => this.client.resume())).state;
  }

  /** Saves the machine while it runs. A save that is cancelled leaves nothing. Errors: MACHINE_GONE, those of a store. */
  async save(options: SaveOptions = {}): Promise<MachineSaveResult> {
    const { store = null, tags = [], then = null, signal, onProgress = () => {} } = options;
    signal?.throwIfAborted();
    const ended = then === 'stop' ? await this.client.directory.watchEnd() : null;
    const saved = await this.client.save({ store, tags, then }, onProgress, signal);
    if (ended !== null) {
      this.detach();
      await ended(PROCESS_END_TIMEOUT_MS);
    }
    return saved;
  }

  /**
   * Ends the machine, as its guest or `timeoutMs` decides, and resolves when its process has ended. `onProgress` is called
   * while its disks are saved. Errors: DISKS_NOT_SAVED, TIMED_OUT. A machine that has ended is no error.
   */
  async stop(options: StopOptions = {}): Promise<Stopped> {
    const { force = false, discard = false, timeoutMs = STOP_TIMEOUT_MS } = options;
    requireTimeout(timeoutMs, MAX_STOP_TIMEOUT_MS);
    return waitingFor(options, () => {
      this.#letGo?.();
      return stopMachine(this.client, { force, discard, timeoutMs }, options.onProgress);
    });
  }

  /** Resolves to how the machine ended, when it has. Errors: MACHINE_GONE (its process died). */
  async wait({ signal }: CallOptions = {}): Promise<EndReport> {
    signal?.throwIfAborted();
    const ended = await this.client.directory.watchEnd();
    const console = await this.console({ signal });
    const close = (): void => void console.close();
    signal?.addEventListener('abort', close);
    try {
      for await (const _ of console);
    } finally {
      signal?.removeEventListener('abort', close);
      close();
      signal?.throwIfAborted();
    }
    const { end } = console;
    if (end === null) throw await this.client.goneError();
    this.detach();
    await unlessAborted(signal, ended(PROCESS_END_TIMEOUT_MS));
    return end;
  }

  /** From now on the machine goes on when this object is disposed of, or when this program ends. */
  detach(): void {
    this.#letGo?.();
    this.#letGo = null;
  }

  /** The machine ends after this time from now; null: it has no end. Errors: USAGE. */
  async setLifetime(lifetimeMs: number | null, options: CallOptions = {}): Promise<void> {
    await waitingFor(options, () => this.client.change({ lifetimeMs: requireLifetime(lifetimeMs) }));
  }

  /** Replaces all labels. Errors: USAGE. */
  async setLabels(labels: Labels, options: CallOptions = {}): Promise<void> {
    await waitingFor(options, () => this.client.change({ labels: requireLabels(labels) }));
  }

  /** Attaches to the console. It resolves when it is attached: all output from then on can be read. */
  console(options: ConsoleOptions = {}): Promise<Console> {
    return Console.open(this.client, options);
  }

  /** Stops the machine at once, if this object started it and has not detached it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#letGo === null) return;
    await this.stop({ force: true }).catch((error: unknown) => {
      if (!(error instanceof LivesnapError && error.code === 'MACHINE_GONE')) throw error;
    });
    this.#letGo = null;
  }
}
