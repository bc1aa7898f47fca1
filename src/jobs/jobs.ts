/**
 * The jobs of this user: starts them, finds them, cancels them.
 *
 * What flows: a request goes to a new process by its standard input; what is known of jobs is read from their directories.
 * Nothing is kept here, so any process finds the jobs of another.
 *
 * Invariants:
 * - Jobs that run are bounded in number, and so are those that have ended.
 * - A job outlives its starter.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, type FSWatcher, openSync, watch } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LivesnapError } from '../errors.js';
import { requireLocks } from '../native/locks.js';
import { unlessAborted } from '../unless-aborted.js';
import { JobDirectory } from './job-directory.js';
import type { Job, JobLaunch, JobRecord, JobRequest } from './job-types.js';

const MAX_RUNNING = 16;
const MAX_ENDED = 100;
/** The kernel does not tell of a process that was killed. */
const SWEEP_MS = 500;

export class Jobs {
  constructor(
    /** The folder of run directories. */
    readonly root: string,
    /** Of jobs that are started without another store. */
    readonly storeDir: string,
  ) {}

  /** By age. */
  async list(): Promise<Job[]> {
    const directories = await JobDirectory.list(this.root);
    const jobs = await Promise.all(directories.map((directory) => directory.read()));
    return jobs
      .filter((job): job is Job => job !== null)
      .sort((a, b) =>
        a.startedAt < b.startedAt ? -1 : a.startedAt > b.startedAt ? 1 : a.id < b.id ? -1 : 1,
      );
  }

  /** Errors: NO_SUCH_JOB. */
  async find(id: string): Promise<Job> {
    const job = (await JobDirectory.at(this.root, id)?.read()) ?? null;
    if (job === null) throw noSuchJob(id);
    return job;
  }

  /** Starts a job in a process of its own. Errors: NOT_POSSIBLE_NOW (too many run), NO_SPACE, SYSTEM. */
  async start(request: JobRequest, subject = '', storeDir = this.storeDir): Promise<Job> {
    requireLocks();
    const all = await this.list();
    if (all.filter(({ state }) => state === 'running').length >= MAX_RUNNING)
      throw new LivesnapError('NOT_POSSIBLE_NOW', `${MAX_RUNNING} jobs are running already`, {
        hint: 'Wait for one of them, or cancel it.',
      });
    const ended = all.filter(({ state }) => state !== 'running');
    for (const { id } of ended.slice(0, Math.max(0, ended.length - MAX_ENDED + 1)))
      JobDirectory.at(this.root, id)!.remove();
    const id = randomBytes(16).toString('hex');
    const directory = JobDirectory.at(this.root, id)!;
    const record: JobRecord = {
      ...{ kind: request.kind, subject, state: 'running', startedAt: new Date().toISOString() },
      ...{ endedAt: null, progress: null, result: null, error: null },
    };
    const lock = await directory.create(record);
    try {
      const { path } = directory;
      await run(lock, directory.log, {
        ...{ directory: path, storeDir, subject, startedAt: record.startedAt, request },
      });
    } catch (error) {
      directory.remove();
      throw error;
    } finally {
      closeSync(lock);
    }
    return { ...record, id };
  }

  /** Resolves when the job has ended. Errors: NO_SUCH_JOB, the signal's reason. */
  async wait(id: string, signal?: AbortSignal): Promise<Job> {
    let watcher: FSWatcher | null = null;
    let wake = (): void => {};
    try {
      watcher = watch(JobDirectory.at(this.root, id)?.path ?? '', () => wake());
      watcher.on('error', () => {});
    } catch {} // sweeps find its end
    try {
      for (;;) {
        const changed = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const job = await this.find(id);
        if (job.state !== 'running') return job;
        await unlessAborted(signal, Promise.race([changed, sleep(SWEEP_MS)]));
      }
    } finally {
      watcher?.close();
    }
  }

  /** Cancels a job that runs, or forgets one that has ended. Errors: NO_SUCH_JOB. */
  async remove(id: string): Promise<void> {
    const { state } = await this.find(id);
    const directory = JobDirectory.at(this.root, id)!;
    if (state === 'running') directory.cancel();
    else directory.remove();
  }
}

export const noSuchJob = (id: string): LivesnapError =>
  new LivesnapError('NO_SUCH_JOB', `there is no job ${id}`, { hint: 'GET /v1/jobs lists the jobs.' });

/** Starts the process. Resolves when it has its request. Errors: SYSTEM. */
function run(lock: number, log: string, launch: JobLaunch): Promise<void> {
  const logFd = openSync(log, 'a', 0o600);
  const child = spawn(process.execPath, [fileURLToPath(new URL('./job-process.js', import.meta.url))], {
    detached: true,
    cwd: '/',
    stdio: ['pipe', logFd, logFd, lock],
  });
  closeSync(logFd);
  child.unref();
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void =>
      reject(
        new LivesnapError('SYSTEM', `the process of the job was not started: ${error.message}`, {
          cause: error,
        }),
      );
    child.once('error', fail);
    child.stdin!.once('error', fail);
    child.stdin!.end(JSON.stringify(launch), () => resolve());
  });
}
