/**
 * The state of the host, and what changes of it, for all who watch: the page, above all.
 *
 * What flows: changes of machines and snapshots come from the library's events, and every two seconds the figures of
 * machines; each reader gets the whole state once, and then frames. All of it on the main thread, except what the store
 * is asked, which its own thread answers.
 *
 * Invariants:
 * - While nobody reads, nothing is watched and nobody is asked. What changed meanwhile is told to those who come back.
 * - One look serves all readers, and a frame is made once.
 * - What waits for a slow reader is bounded: who is too far behind gets the whole state instead.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { EventLog, type Logged } from '../host/event-log.js';
import type { Host } from '../host/host.js';
import type { HostEvents } from '../host/host-events.js';
import { changesBetween, type HostChange, type HostState, type MachineFacts } from '../host/host-state.js';
import type { MachineInfo } from '../host/machine-info.js';
import { unlessAborted } from '../unless-aborted.js';
import type { HostAbout, Job, Machine, Overview, Usage } from './schemas.js';
import type { ServerLog } from './server-log.js';

/** What a reader gets. `usage` has no position: the next one has newer figures. */
export interface Frame {
  readonly position: string | null;
  readonly event: string;
  /** JSON. */
  readonly data: string;
}

export interface FeedSources {
  readonly events: Pick<HostEvents, 'read'>;
  readonly machines: Host['machines'];
  /** All jobs. `machines`: as they have just been found. */
  readonly jobs: (machines: readonly MachineInfo[]) => Promise<Job[]>;
  readonly about: HostAbout;
  /** Null: there is no store yet. */
  readonly stats: () => Promise<Overview['store']>;
  /** What deleting each snapshot would free. Null: there is no store yet. */
  readonly uniqueBytes: () => Promise<Overview['uniqueBytes']>;
  readonly log: Pick<ServerLog, 'fault'>;
}

const USAGE_MS = 2000;
/** While a job runs. */
const PROGRESS_MS = 500;
/** How long the first state waits for the figures of machines. */
const FIRST_LOOK_MS = 300;
/** A new snapshot is often followed by others, and these figures take seconds in a large store. */
const STATS_PAUSE_MS = 2000;

type Change = Omit<Frame, 'position'>;

const toMachine = (facts: MachineFacts): Machine => ({
  ...facts,
  endsAt: null,
  touchedBytes: null,
  cpuSeconds: null,
  dirtyBytes: null,
});

interface Identified {
  readonly id: string;
}

const without = <T extends Identified>(all: readonly T[], one: T): T[] =>
  all.filter(({ id }) => id !== one.id);

/** In its old place, or as the last one. */
const withNew = <T extends Identified>(all: readonly T[], one: T): T[] =>
  all.some(({ id }) => id === one.id) ? all.map((each) => (each.id === one.id ? one : each)) : [...all, one];

export class Feed {
  readonly #sources: FeedSources;
  readonly #log: EventLog<Change>;
  /** By ID. */
  readonly #machines = new Map<string, Machine>();
  #state: HostState = { machines: [], snapshots: [] };
  #store: Overview['store'] = null;
  #uniqueBytes: Overview['uniqueBytes'] = null;
  #usage: Change | null = null;
  /** By ID. */
  #jobs: ReadonlyMap<string, Job> = new Map();
  #hurry: () => void = () => {};
  readonly #waiting = new Set<() => void>();
  #readers = 0;
  #work: { readonly end: AbortController; readonly ready: Promise<void> } | null = null;
  #stats: 'idle' | 'asked' | 'askAgain' = 'idle';

  constructor(sources: FeedSources, logLimit?: number) {
    this.#sources = sources;
    this.#log = new EventLog(logLimit);
  }

  /**
   * Frames without an end. `after`: the position of the last frame that the reader knows. Errors: the signal's reason,
   * and those of reading the store.
   */
  async *read({ after, signal }: { after?: string | undefined; signal: AbortSignal }): AsyncGenerator<Frame> {
    signal.throwIfAborted();
    this.#readers++;
    this.#work ??= this.#begin();
    try {
      await unlessAborted(signal, this.#work.ready);
      let position = after ?? '';
      let usage: Change | null = null;
      for (;;) {
        const changes = this.#log.since(position);
        if (changes === null) {
          position = this.#log.position;
          yield { position, event: 'state', data: JSON.stringify(this.#overview()) };
        } else if (changes.length > 0)
          for (const change of changes) {
            position = change.position;
            yield change satisfies Logged<Change>;
          }
        else if (this.#usage !== usage && this.#usage !== null) {
          usage = this.#usage;
          yield { ...usage, position: null };
        } else await unlessAborted(signal, this.#change());
        signal.throwIfAborted();
      }
    } finally {
      if (--this.#readers === 0) this.#stop();
    }
  }

  /** The whole state. Errors: those of reading the store. */
  async overview(signal: AbortSignal): Promise<Overview> {
    for await (const { event, data } of this.read({ signal })) if (event === 'state') return JSON.parse(data);
    throw signal.reason;
  }

  #overview(): Overview {
    return {
      host: this.#sources.about,
      machines: [...this.#machines.values()],
      snapshots: this.#state.snapshots,
      jobs: [...this.#jobs.values()],
      store: this.#store,
      uniqueBytes: this.#uniqueBytes,
    };
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #tell(event: string, data: unknown): void {
    this.#log.append([{ event, data: JSON.stringify(data) }]);
    this.#wake();
  }

  #begin(): { end: AbortController; ready: Promise<void> } {
    const end = new AbortController();
    const ready = new Promise<void>((resolve, reject) => {
      this.#follow(end.signal, resolve).catch((error: unknown) => {
        reject(error); // of no effect if it was ready
        if (end.signal.aborted) return;
        this.#sources.log.fault(error);
        this.#stop(); // the next reader begins anew
      });
    });
    ready.catch(() => {}); // those who read get it
    return { end, ready };
  }

  #stop(): void {
    this.#work?.end.abort();
    this.#work = null;
    this.#waiting.clear();
  }

  async #follow(signal: AbortSignal, isReady: () => void): Promise<void> {
    for await (const event of this.#sources.events.read({ signal })) {
      if (event.type !== 'state') {
        this.#take(event);
        continue;
      }
      const before = this.#state;
      this.#state = { machines: event.machines, snapshots: event.snapshots };
      for (const change of changesBetween(before, this.#state)) this.#note(change);
      this.#askStats();
      const look = this.#lookAtMachines(signal);
      void this.#followMachines(signal, look);
      // A machine that does not answer keeps nobody waiting.
      await Promise.race([look.catch(() => {}), sleep(FIRST_LOOK_MS)]);
      isReady();
    }
  }

  /** A change after the last state. */
  #take(change: HostChange): void {
    const { machines, snapshots } = this.#state;
    if ('machine' in change) {
      const { type, machine } = change;
      this.#state = {
        machines: type === 'machine-ended' ? without(machines, machine) : withNew(machines, machine),
        snapshots,
      };
    } else {
      const { type, snapshot } = change;
      this.#state = {
        machines,
        snapshots: type === 'snapshot-removed' ? without(snapshots, snapshot) : withNew(snapshots, snapshot),
      };
      this.#askStats();
    }
    this.#note(change);
  }

  #note(change: HostChange): void {
    if ('machine' in change) {
      const { id } = change.machine;
      const machine = { ...toMachine(change.machine), ...this.#figuresOf(id) };
      if (change.type === 'machine-ended') this.#machines.delete(id);
      else this.#machines.set(id, machine);
      this.#tell(change.type, { machine });
    } else {
      const { type, ...about } = change;
      this.#tell(type, about);
    }
  }

  #figuresOf(id: string): Pick<Machine, 'endsAt' | keyof Usage[string]> | undefined {
    const known = this.#machines.get(id);
    if (known === undefined) return undefined;
    const { endsAt, touchedBytes, cpuSeconds, dirtyBytes } = known;
    return { endsAt, touchedBytes, cpuSeconds, dirtyBytes };
  }

  /** To be called when a job has begun or was forgotten. */
  lookSoon(): void {
    this.#hurry();
  }

  /** `look`: the one that has just begun. */
  async #followMachines(signal: AbortSignal, look: Promise<void>): Promise<void> {
    for (;;) {
      try {
        await look;
        const isBusy = [...this.#jobs.values()].some(({ state }) => state === 'running');
        const hurry = new Promise<void>((resolve) => {
          this.#hurry = resolve;
        });
        await unlessAborted(signal, Promise.race([hurry, sleep(isBusy ? PROGRESS_MS : USAGE_MS)]));
        look = this.#lookAtMachines(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#sources.log.fault(error); // the readers have the state without figures
        return;
      }
    }
  }

  /** Asks all machines, and looks for jobs. What the library's events tell, the state above all, is taken from those alone. */
  async #lookAtMachines(signal: AbortSignal): Promise<void> {
    const infos = await this.#sources.machines();
    const jobs = await this.#sources.jobs(infos);
    if (signal.aborted) return;
    this.#takeJobs(jobs);
    const usage: Record<string, Usage[string]> = {};
    for (const { id, state, endsAt, touchedBytes, cpuSeconds, dirtyBytes } of infos) {
      const known = id === null ? undefined : this.#machines.get(id);
      if (id === null || known === undefined || known.state === 'failed') continue;
      const isSilent = state === 'unresponsive';
      const told = this.#state.machines.find((each) => each.id === id)?.state ?? known.state;
      const now = { ...known, touchedBytes, cpuSeconds, dirtyBytes, state: isSilent ? state : told };
      if (!isSilent) now.endsAt = endsAt;
      this.#machines.set(id, now);
      if (now.endsAt !== known.endsAt || now.state !== known.state)
        this.#tell('machine-changed', { machine: now });
      if (touchedBytes !== null && cpuSeconds !== null) usage[id] = { touchedBytes, cpuSeconds, dirtyBytes };
    }
    this.#usage = { event: 'usage', data: JSON.stringify(usage) };
    this.#wake();
  }

  #takeJobs(jobs: readonly Job[]): void {
    const before = this.#jobs;
    this.#jobs = new Map(jobs.map((job) => [job.id, job]));
    let hasStoreChanged = false;
    for (const job of jobs) {
      const old = before.get(job.id);
      if (old !== undefined && isDeepStrictEqual(old, job)) continue;
      this.#tell('job', { job });
      hasStoreChanged ||= job.state !== 'running' && job.kind !== 'save';
    }
    for (const id of before.keys()) if (!this.#jobs.has(id)) this.#tell('job-removed', { id });
    if (hasStoreChanged) this.#askStats();
  }

  /** Asks the store for its figures soon; once if they are wanted several times meanwhile. */
  #askStats(): void {
    if (this.#stats !== 'idle') {
      this.#stats = 'askAgain';
      return;
    }
    this.#stats = 'asked';
    void (async () => {
      try {
        const store = await this.#sources.stats();
        if (!isDeepStrictEqual(store, this.#store)) this.#tell('store', store);
        this.#store = store;
        const uniqueBytes = await this.#sources.uniqueBytes();
        if (!isDeepStrictEqual(uniqueBytes, this.#uniqueBytes)) this.#tell('unique-bytes', uniqueBytes);
        this.#uniqueBytes = uniqueBytes;
      } catch (error) {
        this.#sources.log.fault(error);
      }
      setTimeout(() => {
        const again = this.#stats === 'askAgain';
        this.#stats = 'idle';
        if (again && this.#work !== null) this.#askStats();
      }, STATS_PAUSE_MS).unref();
    })();
  }
}
