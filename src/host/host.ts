/**
 * The machines and the store of this host.
 *
 * What flows: options go to a new process of a machine (machine/launch.ts), requests to the API of a machine's process
 * (machine/client.ts), and everything about snapshots to a store that is opened for the call. All of it happens in this
 * process and on the calling thread. Nothing is kept between calls, except the latest events for those who read them.
 */
import { availableParallelism } from 'node:os';
import { runRoot } from '../environment.js';
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { LaunchRequest } from '../machine/launch-messages.js';
import { RunDirectory } from '../machine/run-directory.js';
import type { SnapshotSummary } from '../page-stream.js';
import { requireOptions } from './arguments.js';
import type { CallOptions } from './call-options.js';
import { findMachine } from './find-machine.js';
import type { EventOptions, HostEvent, HostEvents } from './host-events.js';
import type { ChosenName, TakeProcess } from './launch-machine.js';
import { locateSnapshot } from './locate-snapshot.js';
import { Machine } from './machine.js';
import { type MachineFilter, type MachineInfo, machineInfos } from './machine-info.js';
import {
  launchRequest,
  type RestoreOptions,
  restoreOrigin,
  type StartOptions,
  startOrigin,
} from './machine-options.js';
import { withStore } from './open-store.js';
import type { Snapshot } from './snapshot.js';
import { SnapshotStore } from './snapshot-store.js';

export interface ForkOptions extends RestoreOptions {
  /** How many machines. Default: 1. */
  readonly count?: number | undefined;
  /** The machines are called NAME-1, NAME-2 and so on. Default: free names like that of the original. */
  readonly name?: string | undefined;
  /** Called after each machine, or error. */
  readonly onForked?: ((done: number, count: number) => void) | undefined;
}

/** One machine of a fork, or why there is none. */
export type Forked = { readonly machine: Machine } | { readonly error: LivesnapError };

/** More start no faster: each process takes a processor for tens of milliseconds. */
const STARTED_AT_ONCE = Math.max(2, availableParallelism());
const MAX_FORKS = 1000;

export class Host implements AsyncDisposable {
  /** Absolute path of the store. */
  readonly storeDir: string;
  readonly store: SnapshotStore;
  #events: Promise<HostEvents> | null = null;
  readonly #takeProcess: TakeProcess | undefined;

  /** Use {@link connect}. */
  constructor(storeDir: string, takeProcess?: TakeProcess) {
    this.storeDir = storeDir;
    this.store = new SnapshotStore(storeDir);
    this.#takeProcess = takeProcess;
  }

  /**
   * Boots a machine. Resolves when it runs. Errors: USAGE, NO_SUCH_FILE, BAD_IMAGE, NAME_IN_USE, HOST_LACKS, those of a
   * store, MACHINE_FAILED.
   */
  async start(options: StartOptions): Promise<Machine> {
    const origin = startOrigin(options);
    return this.#launch({ name: options.name ?? null, like: null }, origin, options);
  }

  /**
   * Restores a machine from a snapshot: the object, a tag, an ID, a unique prefix of one, or an exported directory.
   * Resolves when it runs. Errors: as of {@link start}, NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, DOES_NOT_FIT.
   */
  async restore(snapshot: Snapshot | string, options: RestoreOptions = {}): Promise<Machine> {
    requireOptions(options, 'restore', "restore('ready', { name: 'web' })");
    options.signal?.throwIfAborted();
    const { dir, saved } = await this.#findSaved(snapshot);
    const name = { name: options.name ?? null, like: options.asNew ? null : saved.vm };
    return this.#launch(name, restoreOrigin(dir, saved.id, options), options);
  }

  /**
   * Restores a snapshot several times, as clones that run beside each other. A machine is saved first. Each result is a
   * machine or an error; one error does not end the others. If it is cancelled, the machines are stopped. Errors: those
   * of the save, USAGE, NO_SUCH_SNAPSHOT.
   */
  async fork(from: Machine | Snapshot | string, options: ForkOptions = {}): Promise<Forked[]> {
    requireOptions(options, 'fork', "fork('ready', { count: 5 })");
    const { count = 1, name, onForked, ...rest } = options;
    if (!Number.isSafeInteger(count) || count < 1 || count > MAX_FORKS)
      throw new LivesnapError('USAGE', `${count} is not a number of machines`, {
        hint: `Use 1 to ${MAX_FORKS}.`,
      });
    const { signal } = options;
    signal?.throwIfAborted();
    const ref = from instanceof Machine ? (await from.save({ store: this.storeDir, signal })).id : from;
    const { dir, saved } = await this.#findSaved(ref);
    const origin = restoreOrigin(dir, saved.id, { ...rest, asNew: true });
    const results: Forked[] = new Array(count);
    let next = 0;
    let done = 0;
    const lane = async (): Promise<void> => {
      while (next < count) {
        const i = next++;
        const chosen =
          name === undefined ? { name: null, like: saved.vm } : { name: `${name}-${i + 1}`, like: null };
        results[i] = await this.#launch(chosen, origin, rest).then(
          (machine) => ({ machine }),
          (error: unknown) => ({ error: asLivesnapError(error) }),
        );
        onForked?.(++done, count);
      }
    };
    await Promise.all(Array.from({ length: Math.min(STARTED_AT_ONCE, count) }, lane));
    if (!signal?.aborted) return results;
    await Promise.all(results.map((each) => 'machine' in each && each.machine[Symbol.asyncDispose]()));
    throw signal.reason;
  }

  /**
   * The snapshot of a machine that `from` names, and the store that has it. With an object no store is opened here.
   * Errors: as of {@link restore}.
   */
  async #findSaved(from: Snapshot | string): Promise<{ dir: string; saved: SnapshotSummary }> {
    // Programs in JavaScript have no compiler that says so.
    if (typeof from !== 'string' && typeof from?.storeDir !== 'string')
      throw new LivesnapError('USAGE', 'no snapshot is named', {
        hint: "Give a tag, an ID, or the Snapshot that store.get() has returned. Example: 'ready'.",
      });
    const found =
      typeof from === 'string' ? await this.#find(from) : { dir: from.storeDir, saved: from.about };
    const { id, kind } = found.saved;
    if (kind !== 'machine') throw notOfMachine(typeof from === 'string' ? from : id, kind);
    return found;
  }

  async #find(from: string): Promise<{ dir: string; saved: SnapshotSummary }> {
    const { dir, ref } = await locateSnapshot(this.storeDir, from);
    return { dir, saved: await withStore(dir, { write: false }, (store) => store.find(ref)) };
  }

  /** A machine that runs, by its name, its ID or a unique prefix of that. Errors: NO_SUCH_MACHINE, MACHINE_GONE. */
  machine(nameOrId: string, options: CallOptions = {}): Promise<Machine> {
    return findMachine(nameOrId, options);
  }

  /** All machines of this user, by name; also those that failed or whose process died. */
  machines(filter: MachineFilter & CallOptions = {}): Promise<MachineInfo[]> {
    filter.signal?.throwIfAborted();
    return machineInfos(filter);
  }

  /**
   * Changes of machines and snapshots, as they happen, without an end. Without `after`, or if changes since then are
   * not known any more, the whole state comes first. Errors: the signal's reason, and those of opening a store.
   */
  async *events(options: EventOptions = {}): AsyncGenerator<HostEvent, never, undefined> {
    this.#events ??= import('./host-events.js').then(
      ({ HostEvents }) => new HostEvents(this.storeDir, () => this.store.list()),
    );
    return yield* (await this.#events).read(options);
  }

  async #launch(
    name: ChosenName,
    origin: LaunchRequest['origin'],
    options: StartOptions | RestoreOptions,
  ): Promise<Machine> {
    const request = { ...launchRequest(this.storeDir, options), origin };
    // Other calls do not load Node's code for child processes, which takes 6 ms.
    const { launchMachine } = await import('./launch-machine.js');
    const launched = await launchMachine(name, request, this.#takeProcess, options);
    return new Machine(new RunDirectory(runRoot(), launched.name), launched.machine, launched.letGo);
  }

  /** Ends nothing: machines go on. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

function notOfMachine(snapshot: string, kind: 'file' | 'disk'): LivesnapError {
  return kind === 'file'
    ? new LivesnapError('USAGE', `snapshot ${snapshot} holds a file, not a machine`, {
        hint: `To write the file: livesnap get ${snapshot} FILE`,
      })
    : new LivesnapError('USAGE', `snapshot ${snapshot} holds disks, not a machine`, {
        hint: `To start a machine with a disk of it: livesnap start --block snapshot=${snapshot}:disk0`,
      });
}
