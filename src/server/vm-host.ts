/**
 * A machine in its own process: joins the machine, its run directory and its control API, and sees them through
 * to the end.
 *
 * Invariants:
 * - The guest does not run before the machine can be found and asked ({@link VmHost.open}).
 * - Pause, resume and save happen one after another, stop at any time.
 * - However the machine ends, its starter can still join and read the last output and the end, and the requests under
 *   way are answered. Only then is the run directory removed, or kept with the reason when the machine failed.
 * - A save that waits for another process does not hold up the end: it is given up.
 * - A failure to record something in the run directory is logged. It is never a failure of what was done.
 * - After the end every operation fails with MACHINE_GONE; `ended` settles exactly once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineEnd, MachineHandle, MachineSaveResult } from '../vmm/machine-types.js';
import { ConsoleHub } from './console-hub.js';
import type { ControlledMachine, ControlServer, MachineDescription, SaveRequest } from './control-api.js';
import type { ClaimedRunDirectory, MachineRecord } from './run-directory.js';
import type { DistantStore } from './store-thread-client.js';

/** How long a save that is under way when the machine ends may still wait for other processes. */
const LAST_WAIT_MS = 500;

/** Where the stores of a machine are: the store thread (store-thread-client.ts), or a fake. */
export interface MachineStores {
  open(
    dir: string,
    options: { write: boolean; create?: boolean },
  ): Promise<Omit<DistantStore, 'openSnapshot'>>;
  giveUpWaits(): void;
}

export interface VmHostOptions {
  readonly directory: ClaimedRunDirectory;
  readonly server: ControlServer;
  /** Absolute path of the store that saves go to unless they name another. */
  readonly storeDir: string;
  readonly port: number | null;
  readonly stores: MachineStores;
  readonly log: (sentence: string) => void;
  /**
   * Settles when the machine's starter is gone or needs nothing more of it. Until then the API of a machine that has
   * ended stays up (default: nobody waits for it).
   */
  readonly starterDone?: Promise<void>;
  /** How long viewers that do not read may hold up the end of the process (default: a second). */
  readonly closeGraceMs?: number;
}

export class VmHost implements ControlledMachine {
  readonly console = new ConsoleHub();
  /** Settles when the machine has ended and nothing of it is left but, after a failure, its run directory. */
  readonly ended: Promise<MachineEnd>;
  readonly #machine: MachineHandle;
  readonly #options: VmHostOptions;
  readonly #startedAt = new Date().toISOString();
  /** Somebody wants the machine to end: its starter may hold the end up no longer than any viewer. */
  #stopWanted: () => void = () => {};
  readonly #whenStopWanted = new Promise<void>((resolve) => {
    this.#stopWanted = resolve;
  });
  /** The last of the operations that wait for each other. */
  #last: Promise<unknown> = Promise.resolve();
  /** What stores are tidied after saves: nobody waits for it but the end of the process. */
  #tidying: Promise<unknown> = Promise.resolve();

  constructor(machine: MachineHandle, options: VmHostOptions) {
    this.#machine = machine;
    this.#options = options;
    machine.on('console', (bytes, missedBytes) => {
      if (missedBytes > 0) this.console.skip(missedBytes);
      this.console.push(bytes);
    });
    this.ended = new Promise<MachineEnd>((resolve) => {
      if (machine.end !== null) resolve(machine.end);
      else machine.on('end', resolve);
    }).then((end) => this.#finish(end));
  }

  get end(): MachineEnd | null {
    return this.#machine.end;
  }

  /** Writes the record, answers requests from now on, and lets the guest run. */
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
    };
  }

  pause(): Promise<void> {
    return this.#inTurn(() => this.#machine.pause());
  }

  resume(): Promise<void> {
    return this.#inTurn(() => this.#machine.resume());
  }

  async stop(): Promise<void> {
    this.#stopWanted();
    if (this.end === null) await this.#machine.stop();
  }

  save(request: SaveRequest, progress: Progress): Promise<MachineSaveResult> {
    return this.#inTurn(async () => {
      const { log } = this.#options;
      try {
        const result = await this.#saveTo(request, progress);
        log(`saved as ${result.id}`);
        if (this.end === null) await this.#note(null);
        return result;
      } catch (error) {
        log(`a save failed: ${error instanceof LivesnapError ? error.message : inspect(error)}`);
        // Whatever ended it: a machine that has ended cannot be saved.
        this.#mustLive();
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

  #tidyAndClose(store: Omit<DistantStore, 'openSnapshot'>): void {
    const { log } = this.#options;
    this.#tidying = this.#tidying
      .then(() => store.tidy())
      .then((error) => error && log(`the store was not tidied: ${error.message}`))
      .catch((error: Error) => log(`tidying the store failed: ${inspect(error)}`))
      .finally(() => store.close());
  }

  writeConsole(bytes: Uint8Array): void {
    this.#mustLive();
    this.#machine.writeConsole(bytes);
  }

  #mustLive(): void {
    if (this.end !== null)
      throw new LivesnapError('MACHINE_GONE', `the machine ${this.#options.directory.name} has ended`);
  }

  #inTurn<T>(operation: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      this.#mustLive();
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

  /** Notes in the run directory what the machine is now, for `ps`. Where that fails, the log says so. */
  async #note(failure: string | null): Promise<void> {
    const { directory, log } = this.#options;
    try {
      await directory.writeRecord(this.#record(failure));
    } catch (error) {
      log(`what the machine is could not be noted: ${(error as Error).message}`);
    }
  }

  /** Notes why the process ends, though the machine has not. Does not fail. */
  noteFailure(message: string): Promise<void> {
    return this.#note(message);
  }

  /** A guest that ends at once must not be gone before its starter, who has just heard that it runs, has joined. */
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
    // A save that ends the machine is still being stored and answered.
    const lastWait = setTimeout(() => stores.giveUpWaits(), LAST_WAIT_MS);
    await this.#last;
    await this.#tidying;
    clearTimeout(lastWait);
    if (end.kind === 'failed') await this.#note(end.error.message);
    await this.#starterDone(end, closeGraceMs);
    await server.close(closeGraceMs);
    if (end.kind !== 'failed')
      await directory.remove().catch((error: Error) => log(`the run directory stays: ${error.message}`));
    return end;
  }
}
