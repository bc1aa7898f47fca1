/**
 * Serves a machine in its process: connects the machine, its run directory and its control API, from the start to the
 * end.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - The guest does not run before the machine can be found and its API answers ({@link MachineService.open}).
 * - Pause, resume and save run one after another. A forced stop runs at any time; a stop that asks the guest waits for
 *   the operations before it, within its own time.
 * - A save whose client disconnects is cancelled, unless it is already committed.
 * - When the machine has ended, requests in progress are answered, and its starter can read the last output and how it
 *   ended. Only then is the run directory removed, or kept with the reason when the machine failed.
 * - A save that waits for another process does not delay the end: the wait is cancelled.
 * - What was written to disks that end with the machine is saved before the machine ends, unless that is refused.
 * - A failure to write the record is logged. It never fails the operation that is recorded.
 * - After the end every operation fails with MACHINE_GONE. `ended` settles exactly once.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Labels } from '../labels.js';
import type { Progress } from '../page-stream.js';
import { SAVED_HISTORY_BYTES, type SavedConsole } from '../vmm/console/saved-console.js';
import type { MachineEnd, MachineHandle, MachineSaveResult, WithStore } from '../vmm/machine-types.js';
import { ConsoleHub } from './console-hub.js';
import {
  type MachineChange,
  type MachineDescription,
  type SaveJob,
  type SaveRequest,
  STOP_TIMEOUT_MS,
  type StopRequest,
  type StopResult,
} from './control-api.js';
import type { ControlledMachine } from './control-routes.js';
import type { ControlServer } from './control-server.js';
import { DirtyCount } from './dirty-count.js';
import type { StarterRequest } from './launch-messages.js';
import { Lifetime } from './lifetime.js';
import { processUsage } from './process-usage.js';
import type { ClaimedRunDirectory, MachineRecord } from './run-directory.js';
import { SaveJobs } from './save-jobs.js';
import { DEFAULT_PROMPT, Starter } from './starter.js';
import type { StoreProxy } from './store-thread-client.js';

/** How long a save in progress may still wait for other processes when the machine has ended. */
const LAST_WAIT_MS = 500;

const LINE_FEED = 0x0a;

/** The lines in a snapshot. Invalid UTF-8 in an untrusted one becomes U+FFFD. */
const linesOf = (starter: Uint8Array): string[] => Buffer.from(starter).toString('utf8').split('\n');

/** For a signal: the guest is not asked. */
export const AT_ONCE: StopRequest = { force: true, discard: false, timeoutMs: 0 };

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
  /** Lines to type into the console (default: none). A restored machine has its own. */
  readonly starter?: StarterRequest;
  /** Default: those of the snapshot that the machine was restored from. */
  readonly labels?: Labels | undefined;
  /** The machine ends after this time (default: it has no end). */
  readonly lifetimeMs?: number | null;
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
  readonly #starter: Starter;
  readonly id = randomBytes(16).toString('hex');
  readonly #dirty: DirtyCount;
  readonly #startedAt = new Date().toISOString();
  #labels: Labels;
  readonly #lifetime = new Lifetime(() => this.#endLife());
  /** After a stop, the starter may delay the end no longer than a viewer. */
  #stopWanted: () => void = () => {};
  readonly #whenStopWanted = new Promise<void>((resolve) => {
    this.#stopWanted = resolve;
  });
  readonly #saveJobs = new SaveJobs();
  /** Saves that are not finished. */
  readonly #saves = new Set<Promise<unknown>>();
  readonly #machineEnded: Promise<MachineEnd>;
  /** The last of the operations that run one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #savingDisks: Promise<void> | null = null;
  /** A stop was asked for that does not save the disks. */
  #discards = false;
  /** What the record says. A new machine runs as soon as its record is there. */
  #recordedState: 'running' | 'paused' = 'running';
  /** The last write of the record. */
  #recording: Promise<void> = Promise.resolve();
  /** Why the disks could not be saved when the machine was to end. */
  #diskProblem: string | null = null;
  #diskSave: MachineDescription['diskSave'] = null;
  /** Tidies stores after saves. Only the end of the process waits for it. */
  #tidying: Promise<unknown> = Promise.resolve();

  constructor(machine: MachineHandle, options: MachineServiceOptions) {
    this.#machine = machine;
    this.#options = options;
    this.#dirty = new DirtyCount(() => machine.countDirtyBytes());
    this.#labels = options.labels ?? machine.savedLabels ?? {};
    this.#starter = this.#newStarter(machine.savedConsole);
    if (machine.savedConsole !== null) this.#takeHistory(machine.savedConsole);
    machine.on('console', (bytes, missedBytes) => {
      if (missedBytes > 0) this.console.skip(missedBytes);
      this.console.push(bytes);
      this.#starter.push(bytes);
    });
    machine.on('problem', (problem) => this.#tellProblem(problem, 'resume'));
    machine.on('poweredOff', () => {
      this.#endMachine(this.#discards).catch((error: LivesnapError) =>
        this.#tellProblem(error.message, 'stop'),
      );
    });
    this.#machineEnded = new Promise<MachineEnd>((resolve) => {
      if (machine.end !== null) resolve(machine.end);
      else machine.on('end', resolve);
    });
    this.ended = this.#machineEnded.then((end) => this.#finish(end));
  }

  #newStarter(saved: SavedConsole | null): Starter {
    const { starter: { lines = [], prompt = null } = {}, log } = this.#options;
    const left = saved === null || saved.starter.length === 0 ? lines : linesOf(saved.starter);
    return new Starter({
      lines: left,
      prompt: prompt === null ? DEFAULT_PROMPT : new RegExp(prompt),
      inLine: saved?.starterInLine ?? false,
      type: (bytes) => {
        try {
          this.#machine.writeConsole(bytes);
        } catch (error) {
          log(`a line of the starter file was not typed: ${(error as Error).message}`);
        }
      },
      log,
    });
  }

  /** A prompt that was on the screen at the moment of the snapshot is one still. */
  #takeHistory({ history, starterInLine }: SavedConsole): void {
    this.console.push(history);
    if (!starterInLine) this.#starter.push(history.subarray(history.lastIndexOf(LINE_FEED) + 1));
  }

  get end(): MachineEnd | null {
    return this.#machine.end;
  }

  /** Writes the record, starts to answer requests, and resumes the guest. */
  async open(): Promise<void> {
    await this.#options.directory.writeRecord(this.#record(null));
    this.#options.server.serve(this);
    await this.#machine.resume();
    this.#lifetime.set(this.#options.lifetimeMs ?? null);
  }

  get name(): string {
    return this.#options.directory.name;
  }

  describe(): MachineDescription {
    const { config, state, snapshot, notices, nets } = this.#machine;
    return {
      id: this.id,
      name: this.name,
      labels: this.#labels,
      pid: process.pid,
      state,
      memoryBytes: config.memoryBytes,
      cpus: config.cpus,
      ...processUsage(),
      dirtyBytes: this.#dirty.bytes(snapshot),
      startedAt: this.#startedAt,
      endsAt: this.#lifetime.endsAt,
      snapshot,
      store: this.#options.storeDir,
      notices,
      nets,
      problem: this.#machine.problem ?? this.#diskProblem,
      diskSave: this.#diskSave,
      saves: this.#saveJobs.list(),
    };
  }

  async change({ labels, lifetimeMs }: MachineChange): Promise<void> {
    this.#requireAlive();
    if (lifetimeMs !== undefined) this.#lifetime.set(lifetimeMs);
    if (labels === undefined) return;
    this.#labels = labels;
    await this.#updateRecord(null);
  }

  /** As `stop` does. Disks that cannot be saved keep the machine, paused, with the reason. */
  #endLife(): void {
    this.#options.log('its lifetime has ended');
    this.stop({ force: false, discard: false, timeoutMs: STOP_TIMEOUT_MS }).catch((error: Error) =>
      this.#tellProblem(error.message, 'stop'),
    );
  }

  pause(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#machine.pause();
      await this.#recordState();
    });
  }

  resume(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#machine.resume();
      this.#diskProblem = null;
      await this.#recordState();
    });
  }

  /** Ends the machine after its disks are saved. A second call waits for the same save. */
  async #endMachine(discard: boolean): Promise<void> {
    if (!discard && this.#machine.savesDisks) {
      this.#savingDisks ??= this.#saveDisksAndStop().finally(() => {
        this.#savingDisks = null;
      });
      await this.#savingDisks;
    }
    if (this.end === null) await this.#machine.stop();
  }

  /** One operation, so that none lets the guest write between the two. */
  async #saveDisksAndStop(): Promise<void> {
    let hasBegun = false;
    try {
      await this.#inTurn(async () => {
        hasBegun = true;
        await this.#saveDisks();
        await this.#machine.stop();
      });
    } catch (error) {
      // An operation before it may have ended the machine.
      if (hasBegun || this.end === null) throw error;
    }
  }

  /** Saves what was written to disks that end with the machine. */
  async #saveDisks(): Promise<void> {
    const { directory, storeDir, stores, log } = this.#options;
    try {
      const withStore: WithStore = async (use) => {
        const store = await stores.open(storeDir, { write: true, create: true });
        try {
          return await use(store);
        } finally {
          await store.close();
        }
      };
      const tag = diskTag(directory.name);
      const saved = await this.#machine.saveDisks(withStore, {
        ...{ vm: directory.name, tags: [tag] },
        progress: (doneBytes, totalBytes) => {
          this.#diskSave = { doneBytes, totalBytes };
        },
      });
      if (saved !== null) log(`its disks are saved as ${saved.id} (${tag})`);
      this.#diskProblem = null;
    } catch (error) {
      this.#requireAlive();
      const { message } = asLivesnapError(error);
      const failure = new LivesnapError('DISKS_NOT_SAVED', `the disks could not be saved: ${message}`, {
        hint: `Make the store writable, or free space, and stop again. To lose the changes: livesnap stop --discard ${directory.name}.`,
        cause: error,
      });
      this.#diskProblem = failure.message;
      log(failure.message);
      throw failure;
    } finally {
      this.#diskSave = null;
    }
  }

  /** Tells the user why the machine is paused, and which verb tries again. */
  #tellProblem(problem: string, verb: 'resume' | 'stop'): void {
    const { directory, log } = this.#options;
    log(`the machine is paused: ${problem}`);
    void this.#recordState();
    const { name } = directory;
    const line = `[livesnap] ${name} is paused: ${problem}. Fix this, then run: livesnap ${verb} ${name}`;
    this.console.push(Buffer.from(`${this.console.atLineStart ? '' : '\r\n'}${line}\r\n`));
  }

  /**
   * Ends the machine: asks the guest to power off, unless `force` is set, and ends it if the guest does not. Saves that
   * were asked for before are waited for as long as the guest. Its disks are saved, unless `discard` is set. Errors:
   * DISKS_NOT_SAVED.
   */
  async stop({ force, discard, timeoutMs }: StopRequest): Promise<StopResult> {
    this.#discards ||= discard;
    const saves = [...this.#saves];
    let reason: StopResult['reason'] = null;
    if (this.end === null) {
      reason = force ? 'forced' : await this.#powerOff(timeoutMs);
      if (reason !== null) await this.#endMachine(discard);
      await this.#machineEnded;
    }
    this.#stopWanted();
    const lostSaves = (await Promise.allSettled(saves)).filter(({ status }) => status === 'rejected').length;
    const { name } = this.#options.directory;
    const how = this.end?.kind === 'halted' ? 'poweredOff' : 'ended';
    return { name, state: 'stopped', how, reason: how === 'poweredOff' ? null : reason, lostSaves };
  }

  /** Presses the power button and waits for the end. Resolves to why the machine has to be ended; null if it has ended. */
  async #powerOff(timeoutMs: number): Promise<'noPowerButton' | 'timedOut' | null> {
    const giveUp = new AbortController();
    const timedOut = sleep(timeoutMs, 'timedOut' as const, { signal: giveUp.signal });
    timedOut.catch(() => {}); // the timer is not needed any more
    const poweredOff = (async () => {
      await this.#last;
      if (giveUp.signal.aborted) return 'timedOut';
      if (!(await this.#machine.pressPowerButton())) return 'noPowerButton' as const;
      // A paused guest would not notice.
      await this.#machine.resume();
      await this.#machineEnded;
      return null;
    })();
    try {
      return await Promise.race([poweredOff, timedOut, this.#machineEnded.then(() => null)]);
    } catch (error) {
      if (error instanceof LivesnapError && error.code === 'MACHINE_GONE') return null;
      throw error;
    } finally {
      giveUp.abort();
      poweredOff.catch(() => {}); // fails when the machine is ended
    }
  }

  save(request: SaveRequest, progress: Progress, signal?: AbortSignal): Promise<MachineSaveResult> {
    const work = (tell: Progress, cancelled: AbortSignal) => this.#saveInTurn(request, tell, cancelled);
    return this.#saveJobs.run(request, work, progress, signal).done;
  }

  startSave(request: SaveRequest): SaveJob {
    const { job, done } = this.#saveJobs.run(request, (progress, cancelled) =>
      this.#saveInTurn(request, progress, cancelled),
    );
    done.catch(() => {}); // the job has the error
    return job;
  }

  removeSave(number: number): void {
    this.#saveJobs.remove(number);
  }

  #saveInTurn(request: SaveRequest, progress: Progress, signal: AbortSignal): Promise<MachineSaveResult> {
    const save = this.#inTurn(async () => {
      const { log } = this.#options;
      try {
        signal.throwIfAborted();
        const result = await this.#saveTo(request, progress, signal);
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
    this.#saves.add(save);
    save.finally(() => this.#saves.delete(save)).catch(() => {}); // the caller has the error
    return save;
  }

  async #saveTo(
    { store: dir, tags, then }: SaveRequest,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<MachineSaveResult> {
    const { directory, storeDir, stores } = this.#options;
    const store = await stores.open(dir ?? storeDir, { write: true, create: true });
    try {
      const result = await this.#machine.save(store, {
        ...{
          vm: directory.name,
          labels: this.#labels,
          tags,
          then,
          progress,
          console: () => this.#savedConsole(),
          signal,
        },
      });
      this.#tidyAndClose(store);
      return result;
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  #savedConsole(): SavedConsole {
    const { pending, inLine } = this.#starter;
    return {
      history: this.console.lastBytes(SAVED_HISTORY_BYTES),
      starter: Buffer.from(pending.join('\n')),
      starterInLine: inLine,
    };
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
    const { config, snapshot } = this.#machine;
    const { memoryBytes, cpus } = config;
    return {
      ...{ id: this.id, name: this.name, labels: this.#labels, pid: process.pid, memoryBytes, cpus },
      ...{
        state: this.#recordedState,
        startedAt: this.#startedAt,
        snapshot,
        port: this.#options.port,
        failure,
        failedAt: failure === null ? null : new Date().toISOString(),
      },
    };
  }

  /** Writes the record, which `ps` reads, after those before it. A failure goes to the log. */
  #updateRecord(failure: string | null): Promise<void> {
    const { directory, log } = this.#options;
    this.#recording = this.#recording.then(async () => {
      try {
        const { state } = this.#machine;
        if (state !== 'stopped') this.#recordedState = state;
        await directory.writeRecord(this.#record(failure));
      } catch (error) {
        log(`the record was not updated: ${(error as Error).message}`);
      }
    });
    return this.#recording;
  }

  /** Programs watch the record to learn whether the machine is paused. */
  async #recordState(): Promise<void> {
    const { state } = this.#machine;
    if (state !== 'stopped' && state !== this.#recordedState) await this.#updateRecord(null);
    else await this.#recording;
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
    this.#lifetime.clear();
    this.console.end();
    this.#starter.end();
    // The save that ends a machine is still being stored and answered.
    const lastWait = setTimeout(() => stores.cancelWaits(), LAST_WAIT_MS);
    await this.#last;
    await this.#tidying;
    clearTimeout(lastWait);
    if (end.kind === 'failed') {
      await this.#updateRecord(end.error.message);
      await directory
        .writeConsole(this.console.lastBytes(SAVED_HISTORY_BYTES))
        .catch((error: Error) => log(`the console was not kept: ${error.message}`));
    }
    await this.#starterDone(end, closeGraceMs);
    await server.close(closeGraceMs);
    if (end.kind !== 'failed')
      await directory
        .remove()
        .catch((error: Error) => log(`the run directory was not removed: ${error.message}`));
    return end;
  }
}
