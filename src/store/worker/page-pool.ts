/**
 * The page Workers of this process and the batches they work on: made when first asked for, shared by all open stores,
 * given up when the last store is closed. A Worker with nothing to do does not keep the process alive.
 *
 * Batches are used again because each thread that has seen one knows it until its own garbage collection, which may not
 * come for thousands of them: a machine that is saved again and again would grow by a mebibyte each time. Some outlive the
 * Workers, for the next save.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { ERROR_CODES, type ErrorCode, LivesnapError, SystemError } from '../../errors.js';
import { DamageError } from '../disk/damage.js';
import { notOfStore } from '../disk/store-error.js';
import { cancelFlag } from '../disk/waits.js';
import { PageBatch } from './page-batch.js';
import type { Answer, Ask, JobName, PlainError, Response } from './page-jobs.js';

const MAX_WORKERS = Math.min(2, availableParallelism());
/** Batches kept when no store is open: as many as a save has. */
const KEPT_BATCHES = 4;

interface Waiting {
  resolve(answer: never): void;
  reject(error: unknown): void;
}

class PageWorker {
  readonly #worker = new Worker(new URL('./page-worker.js', import.meta.url), {
    stdin: false,
    workerData: cancelFlag(),
  });
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #failure: Error | null = null;

  constructor() {
    this.#worker.on('message', (response: Response) => this.#settle(response));
    this.#worker.unref(); // after listening, which would hold the process again
    this.#worker.on('error', (error: Error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new Error('a page Worker has ended')));
  }

  get alive(): boolean {
    return this.#failure === null;
  }

  do<N extends JobName>(name: N, ask: Ask<N>): Promise<Answer<N>> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure);
        return;
      }
      const id = ++this.#lastId;
      if (this.#waiting.size === 0) this.#worker.ref();
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, name, ask });
    });
  }

  #settle(response: Response): void {
    const waiting = this.#waiting.get(response.id);
    this.#waiting.delete(response.id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if ('error' in response) waiting?.reject(revive(response.error));
    else waiting?.resolve(response.answer as never);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#failure);
    this.#waiting.clear();
  }

  end(): void {
    void this.#worker.terminate();
  }
}

function revive(error: PlainError): Error {
  if (error.damage) return new DamageError(error.damage.file, error.damage.offset, error.damage.why);
  if (error.native) {
    const { syscall, errno, errnoName } = error.native;
    const revived = new SystemError(syscall, errno, errnoName, error.message.replace(`${syscall}: `, ''));
    if (error.isOfStore === false) notOfStore(revived);
    return revived;
  }
  if (error.code !== undefined && error.code in ERROR_CODES)
    return new LivesnapError(
      error.code as ErrorCode,
      error.message,
      error.hint === undefined ? {} : { hint: error.hint },
    );
  const { message, code, stack, errno, syscall, path, dest } = error;
  return Object.assign(new Error(message), { code, stack, errno, syscall, path, dest });
}

const workers: (PageWorker | undefined)[] = [];
const idleBatches: PageBatch[] = [];
let users = 0;
let lastSession = 0;

/** The Worker with this index modulo how many there may be. A session stays with one Worker. */
export function pageWorker(index: number): PageWorker {
  const at = index % MAX_WORKERS;
  let worker = workers[at];
  if (!worker?.alive) {
    worker = new PageWorker();
    workers[at] = worker;
  }
  return worker;
}

/** Starts all of them ahead of their use. They end when the last store that is opened from now on is closed. */
export function startPageWorkers(): void {
  for (let i = 0; i < MAX_WORKERS; i++) pageWorker(i);
}

export type { PageWorker };
export const pageWorkerCount = MAX_WORKERS;

/** A batch with anything in it, for {@link giveBatch} to take back when no Worker has it any more. */
export const takeBatch = (): PageBatch => idleBatches.pop() ?? new PageBatch();

export function giveBatch(batch: PageBatch): void {
  if (users > 0 || idleBatches.length < KEPT_BATCHES) idleBatches.push(batch);
}

/** A number that no other session of this process has. */
export const newSession = (): number => ++lastSession;

/** Called by a store that opens; {@link releasePageWorkers} by one that closes. */
export function usePageWorkers(): void {
  users++;
}

export function releasePageWorkers(): void {
  if (--users > 0) return;
  for (const worker of workers) worker?.end();
  workers.length = 0;
  idleBatches.splice(KEPT_BATCHES);
}
