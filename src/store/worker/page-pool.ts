/**
 * Who runs page jobs: page Workers of this thread, and for saves this thread itself. All open stores share them, and the
 * batches of saves.
 *
 * Invariants:
 * - Workers are started when they are first needed, and end when the last store is closed.
 * - The jobs of saves are short, a batch of pages each. Between two of them this thread takes messages. Encoding and
 *   comparing, which take long, are done by native threads (addon/page_pool.h).
 * - A Worker without a job does not keep the process alive.
 * - A Worker that dies fails its jobs with the reason. The next caller gets a new Worker.
 * - Batches are reused. A thread remembers shared memory until its own garbage collection, which may take thousands of
 *   batches: with new ones, a process that saves again and again would grow by 1 MiB each time.
 */
import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { LivesnapError } from '../../errors.js';
import { discardBytes } from '../../native/heap.js';
import { cancelFlag } from '../disk/waits.js';
import { fromJobError, workerFailure } from './job-errors.js';
import { prepareJob, runJob } from './job-runner.js';
import { PageBatch } from './page-batch.js';
import type { JobInput, JobName, JobOutput, JobRequest, JobResponse, PageWorkerData } from './page-jobs.js';

const MAX_WORKERS = Math.min(2, availableParallelism());
/** Batches of a save that are in flight: one is filled, one waits, one is worked on. So many are kept for the next save. */
export const BATCHES_IN_FLIGHT = 3;
const PAGE_WORKER = new URL('./page-worker.js', import.meta.url);

/** Runs jobs in the order of the calls. */
export interface JobRunner {
  do<N extends JobName>(name: N, input: JobInput<N>): Promise<JobOutput<N>>;
  end(): void;
}

interface PendingJob {
  resolve(output: never): void;
  reject(error: unknown): void;
}

class WorkerThread implements JobRunner {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingJob>();
  #lastId = 0;
  #failure: LivesnapError | null = null;

  constructor(code: URL, { isIdle = false }: { isIdle?: boolean } = {}) {
    this.#worker = new Worker(code, {
      name: 'page worker',
      stdin: false,
      workerData: { cancelFlag: cancelFlag(), isIdle } satisfies PageWorkerData,
      resourceLimits: { maxYoungGenerationSizeMb: 3 },
    });
    this.#worker.on('message', (response: JobResponse) => this.#settle(response));
    this.#worker.unref(); // after adding the listener, which refs it
    this.#worker.on('error', (error: Error) => this.#fail(error.message, error));
    this.#worker.on('exit', (status) => this.#fail(`it ended with status ${status}`));
  }

  get alive(): boolean {
    return this.#failure === null;
  }

  do<N extends JobName>(name: N, input: JobInput<N>): Promise<JobOutput<N>> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure);
        return;
      }
      const id = ++this.#lastId;
      if (this.#pending.size === 0) this.#worker.ref();
      this.#pending.set(id, { resolve, reject });
      this.#worker.postMessage({ id, name, input } satisfies JobRequest);
    });
  }

  #settle(response: JobResponse): void {
    const job = this.#pending.get(response.id);
    this.#pending.delete(response.id);
    if (this.#pending.size === 0) this.#worker.unref();
    if ('error' in response) job?.reject(fromJobError(response.error));
    else job?.resolve(response.output as never);
  }

  #fail(why: string, error?: Error): void {
    this.#failure ??= workerFailure(why, error);
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  end(): void {
    void this.#worker.terminate();
  }
}

/** This thread. */
class ThisThread implements JobRunner {
  #last: Promise<unknown> = Promise.resolve();

  do<N extends JobName>(name: N, input: JobInput<N>): Promise<JobOutput<N>> {
    prepareJob(name, input);
    const done = this.#last.then(() => setImmediate()).then(() => runJob(name, input));
    this.#last = done.catch(() => {}); // the caller has the error
    return done;
  }

  /** Keeps no file mapped. */
  end(): void {
    void this.do('forgetSegments', null);
  }
}

const thisThread = new ThisThread();
const workers: (WorkerThread | undefined)[] = [];
const idleBatches: PageBatch[] = [];
/** Open stores. */
let users = 0;
let lastSession = 0;
let workerCode = PAGE_WORKER;

/** Runs the jobs of saves. A Worker would take 10 MiB, and saves would take half as long again (ARCHITECTURE.md). */
export const savingRunner = (): JobRunner => thisThread;

/** The Worker with this index, modulo {@link pageWorkerCount}. */
export function pageWorker(index: number): JobRunner {
  const slot = index % MAX_WORKERS;
  let worker = workers[slot];
  if (!worker?.alive) {
    worker = new WorkerThread(workerCode);
    workers[slot] = worker;
  }
  return worker;
}

/** A Worker that uses only processor and disk time that nothing else wants. The caller ends it. Errors of its jobs: SYSTEM. */
export const idlePageWorker = (): JobRunner => new WorkerThread(workerCode, { isIdle: true });

/** Starts all Workers before they are needed. */
export function startPageWorkers(): void {
  for (let i = 0; i < MAX_WORKERS; i++) pageWorker(i);
}

export const pageWorkerCount = MAX_WORKERS;

/**
 * Does `work` for all items, one at a time on each Worker. After the first failure, or when the signal is aborted, it
 * begins no more items. It settles when no work is in progress. Errors: the first failure, the signal's reason.
 */
export async function onPageWorkers<T>(
  items: readonly T[],
  work: (worker: number, item: T) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  let next = 0;
  let hasFailed = false;
  const lane = async (worker: number): Promise<void> => {
    while (next < items.length && !hasFailed) {
      try {
        signal?.throwIfAborted();
        await work(worker, items[next++]!);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: pageWorkerCount }, (_, i) => lane(i)));
  for (const outcome of lanes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Returns a batch with any content. Give it back with {@link releaseBatch} when no Worker works on it. */
export const acquireBatch = (): PageBatch => idleBatches.pop() ?? new PageBatch();

export function releaseBatch(batch: PageBatch): void {
  if (users > 0 || idleBatches.length < BATCHES_IN_FLIGHT) idleBatches.push(batch);
}

/** Gives the memory of the batches that are kept for the next save back to the kernel. */
export function discardIdleBatches(): void {
  for (const { pages } of idleBatches) discardBytes(pages);
}

/** A session number that is unique in this thread. */
export const newSession = (): number => ++lastSession;

/** Call this when a store is opened, and {@link releasePageWorkers} when it is closed. */
export function usePageWorkers(): void {
  users++;
}

export function releasePageWorkers(): void {
  if (--users > 0) return;
  idleBatches.splice(BATCHES_IN_FLIGHT);
  endWorkers();
  thisThread.end();
}

function endWorkers(): void {
  for (const worker of workers.splice(0)) worker?.end();
}

/** Only for tests: ends the Workers. Later ones run `code`; without it, the real code. */
export function replacePageWorkers(code: URL = PAGE_WORKER): void {
  endWorkers();
  workerCode = code;
}
