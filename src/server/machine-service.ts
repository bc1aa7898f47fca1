/**
 * Serves a machine in its process: connects the machine, its run directory and its control API, from the start to the
 * end.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - The guest does not run before the machine can be found and its API answers ({@link MachineService.open}).
 * - Pause, resume and save run one after another, stop at any time.
 * - When the machine has ended, requests in progress are answered, and its starter can read the last output and how it
 *   ended. Only then is the run directory removed, or kept with the reason when the machine failed.
 * - A save that waits for another process does not delay the end: the wait is cancelled.
 * - What was written to disks that end with the machine is saved before the machine ends, unless that is refused.
 * - A failure to write the record is logged. It never fails the operation that is recorded.
 * - After the end every operation fails with MACHINE_GONE. `ended` settles exactly once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineEnd, MachineHandle, MachineSaveResult } from '../vmm/machine-types.js';
import { ConsoleHub } from './console-hub.js';
import type { MachineDescription, SaveRequest } from './control-api.js';
import type { ControlledMachine } from './control-routes.js';
import type { ControlServer } from './control-server.js';
import type { ClaimedRunDirectory, MachineRecord } from './run-directory.js';
import type { StoreProxy } from './store-thread-client.js';

/** How long a save in progress may still wait for other processes when the machine has ended. */
const LAST_WAIT_MS = 500;

/** Opens the stores of a machine: the store thread (store-thread-client.ts), or a fake. */
export interface MachineStores {
  open(dir: string, options: { write: boolean; create?: boolean }): Promise<Omit<StoreProxy, 'openSnapshot'>>;
  cancelWaits(): void;
}

export interface MachineServiceOptions {
  readonly directory: ClaimedRunDirectory;
  readonly server: ControlServer;
  /** Absolute path of the default store of saves. */
  readonly storeDir: string;
  readonly port: number | null;
  readonly stores: MachineStores;
  readonly log: (sentence: string) => void;
  /**
   * Settles when the machine's starter has ended or needs nothing more. Until then the API stays up after the end of the
   * machine (default: it does not).
   */
  readonly starterDone?: Promise<void>;
  /** How long viewers that do not read may delay the end of the process (default: a second). */
  readonly closeGraceMs?: number;
}

/** The tag of the disks that are saved when a machine ends. A tag is as long as a machine's name at most. */
const diskTag = (name: string): string => `${name.slice(0, 58)}-disk`;

export class MachineService implements ControlledMachine {
  readonly console = new ConsoleHub();
  /** Settles when the machine has ended and everything of it is closed. A failed machine leaves its run directory. */
  readonly ended: Promise<MachineEnd>;
  readonly #machine: MachineHandle;
  readonly #options: MachineServiceOptions;
  readonly #startedAt = new Date().toISOString();
  /** After a stop, the starter may delay the end no longer than a viewer. */
  #stopWanted: () => void = () => {};
  readonly #whenStopWanted = new Promise<void>((resolve) => {
    this.#stopWanted = resolve;
  });
  /** The last of the operations that run one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #savingDisks: Promise<void> | null = null;
  /** Why the disks could not be saved when the machine was to end. */
  #diskProblem: string | null = null;
  /** Tidies stores after saves. Only the end of the process waits for it. */
  #tidying: Promise<unknown> = Promise.resolve();

  constructor(machine: MachineHandle, options: MachineServiceOptions) {
    this.#machine = machine;
    this.#options = options;
    machine.on('console', (bytes, missedBytes) => {
      if (missedBytes > 0) this.console.skip(missedBytes);
      this.console.push(bytes);
    });
    machine.on('problem', (problem) => this.#tellProblem(problem));
    machine.on('poweredOff', () => {
      this.#endMachine(false).catch((error: LivesnapError) => this.#tellProblem(error.message));
    });
    this.ended = new Promise<MachineEnd>((resolve) => {
      if (machine.end !== null) resolve(machine.end);
      else machine.on('end', resolve);
    }).then((end) => this.#finish(end));
  }

  get end(): MachineEnd | null {
    return this.#machine.end;
  }

  /** Writes the record, starts to answer requests, and resumes the guest. */
  async open(): Promise<void> {
    await this.#options.directory.writeRecord(this.#record(null));
    this.#options.server.serve(this);
    await this.#machine.resume();
  }

  describe(): MachineDescription {
    const { config, state, snapshot, notices } = this.#machine;
    return {
      name: this.#options.directory.name,
      pid: process.pid,
      state,
      memoryBytes: config.memoryBytes,
      cpus: config.cpus,
      startedAt: this.#startedAt,
      snapshot,
      store: this.#options.storeDir,
      notices,
      problem: this.#machine.problem ?? this.#diskProblem,
    };
  }

  pause(): Promise<void> {
    return this.#inTurn(() => this.#machine.pause());
  }

  resume(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#machine.resume();
      this.#diskProblem = null;
    });
  }

  /** `discard`: what was written to disks that end with the machine is lost. Errors: DISKS_NOT_SAVED. */
  async stop({ discard = false }: { discard?: boolean } = {}): Promise<void> {
    if (this.end === null) await this.#endMachine(discard);
    this.#stopWanted();
  }

  /** Ends the machine after its disks are saved. A second call waits for the same save. */
  async #endMachine(discard: boolean): Promise<void> {
    if (!discard && this.#machine.savesDisks) {
      this.#savingDisks ??= this.#inTurn(() => this.#saveDisks()).finally(() => {
        this.#savingDisks = null;
      });
      await this.#savingDisks;
    }
    if (this.end === null) await this.#machine.stop();
  }

  /** Saves what was written to disks that end with the machine. */
  async #saveDisks(): Promise<void> {
    const { directory, storeDir, stores, log } = this.#options;
    try {
      const store = await stores.open(storeDir, { write: true, create: true });
      try {
        const tag = diskTag(directory.name);
        const saved = await this.#machine.saveDisks(store, { vm: directory.name, tag });
        if (saved !== null) log(`its disks are saved as ${saved.id} (${tag})`);
        this.#diskProblem = null;
      } finally {
        await store.close();
      }
    } catch (error) {
      this.#requireAlive();
      const { message } = asLivesnapError(error);
      const failure = new LivesnapError('DISKS_NOT_SAVED', `the disks could not be saved: ${message}`, {
        hint: 'Try again, or lose what was written to them: livesnap stop --discard.',
        cause: error,
      });
      this.#diskProblem = failure.message;
      log(failure.message);
      throw failure;
    }
  }

  /** Tells the user why the machine is paused. */
  #tellProblem(problem: string): void {
    const { directory, log } = this.#options;
    log(`the machine is paused: ${problem}`);
    const line = `[livesnap] ${directory.name} is paused: ${problem}`;
    this.console.push(Buffer.from(`${this.console.atLineStart ? '' : '\r\n'}${line}\r\n`));
  }

  save(request: SaveRequest, progress: Progress): Promise<MachineSaveResult> {
    return this.#inTurn(async () => {
      const { log } = this.#options;
      try {
        const result = await this.#saveTo(request, progress);
        log(`saved as ${result.id}`);
        if (this.end === null) await this.#updateRecord(null);
        return result;
      } catch (error) {
        log(`a save failed: ${error instanceof LivesnapError ? error.message : inspect(error)}`);
        // If the machine has ended, that is the reason, whatever the error says.
        this.#requireAlive();
        throw error;
      }
    });
  }

  async #saveTo({ store: dir, tag, then }: SaveRequest, progress: Progress): Promise<MachineSaveResult> {
    const { directory, storeDir, stores } = this.#options;
    const store = await stores.open(dir ?? storeDir, { write: true, create: true });
    try {
      const result = await this.#machine.save(store, { vm: directory.name, tag, then, progress });
      this.#tidyAndClose(store);
      return result;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  #tidyAndClose(store: Omit<StoreProxy, 'openSnapshot'>): void {
    const { log } = this.#options;
    this.#tidying = this.#tidying
      .then(() => store.tidy())
      .then((error) => error && log(`the store was not tidied: ${error.message}`))
      .catch((error: Error) => log(`tidying the store failed: ${inspect(error)}`))
      .finally(() => store.close());
  }

  writeConsole(bytes: Uint8Array): void {
    this.#requireAlive();
    this.#machine.writeConsole(bytes);
  }

  #requireAlive(): void {
    if (this.end !== null)
      throw new LivesnapError('MACHINE_GONE', `the machine ${this.#options.directory.name} has ended`);
  }

  #inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      this.#requireAlive();
      return operation();
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  #record(failure: string | null): MachineRecord {
    const { name, pid, memoryBytes, cpus, startedAt, snapshot } = this.describe();
    const { port } = this.#options;
    return { name, pid, memoryBytes, cpus, startedAt, snapshot, port, failure };
  }

  /** Writes the record, which `ps` reads. A failure goes to the log. */
  async #updateRecord(failure: string | null): Promise<void> {
    const { directory, log } = this.#options;
    try {
      await directory.writeRecord(this.#record(failure));
    } catch (error) {
      log(`the record was not updated: ${(error as Error).message}`);
    }
  }

  /** Records why the process ends before its machine does. Does not fail. */
  recordFailure(message: string): Promise<void> {
    return this.#updateRecord(message);
  }

  /** A guest may end before its starter, which has just been told that it runs, opens its console. */
  async #starterDone(end: MachineEnd, graceMs: number): Promise<void> {
    const { starterDone } = this.#options;
    if (starterDone === undefined) return;
    if (end.kind === 'stopped') this.#stopWanted();
    await Promise.race([starterDone, this.#whenStopWanted.then(() => sleep(graceMs))]);
  }

  async #finish(end: MachineEnd): Promise<MachineEnd> {
    const { directory, server, stores, log, closeGraceMs = 1000 } = this.#options;
    log(
      end.kind === 'failed' ? `the machine failed: ${end.error.message}` : `the machine ended: ${end.kind}`,
    );
    this.console.end();
    // The save that ends a machine is still being stored and answered.
    const lastWait = setTimeout(() => stores.cancelWaits(), LAST_WAIT_MS);
    await this.#last;
    await this.#tidying;
    clearTimeout(lastWait);
    if (end.kind === 'failed') await this.#updateRecord(end.error.message);
    await this.#starterDone(end, closeGraceMs);
    await server.close(closeGraceMs);
    if (end.kind !== 'failed')
      await directory
        .remove()
        .catch((error: Error) => log(`the run directory was not removed: ${error.message}`));
    return end;
  }
}
