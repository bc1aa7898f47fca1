/**
 * The process of a job: it reads what to do from its standard input, does it with the library, and ends.
 *
 * - It holds the lock of its directory as descriptor 3, from its starter on.
 * - Its starter may end at any time. If that happens before the whole request has come, nothing is done.
 * - The file `cancel` in its directory, SIGTERM and SIGINT cancel the work.
 * - stdout and stderr are its log.
 */
import { closeSync, existsSync, rmSync, watch } from 'node:fs';
import { basename, join } from 'node:path';
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { LongCallOptions } from '../host/call-options.js';
import { Host } from '../host/host.js';
import { onNote } from '../notes.js';
import { CANCEL, writeRecord } from './job-directory.js';
import type { JobKind, JobLaunch, JobRecord, JobRequest } from './job-types.js';
import { holdDirectory } from './upload-directory.js';

const PROGRESS_INTERVAL_MS = 250;

type Work<K extends JobKind> = (
  host: Host,
  request: Extract<JobRequest, { kind: K }>,
  call: LongCallOptions,
) => Promise<unknown>;

const WORK: { readonly [K in JobKind]: Work<K> } = {
  gc: ({ store }, { kind: _, ...options }, call) => store.gc({ ...options, ...call }),
  check: ({ store }, { kind: _, ...options }, call) => store.check({ ...options, ...call }),
  async forget({ store }, { keep, prune, snapshots, groupBy }, call) {
    const groups = await store.forget(keep, { snapshots, groupBy, signal: call.signal });
    return { groups, gc: prune ? await store.gc(call) : null };
  },
  copy: ({ store }, { snapshots, remote }, call) =>
    snapshots === null ? store.copyAll(remote, call) : store.copy(snapshots, remote, call),
  async import({ store }, { dir, temporary }, call) {
    const lock = holdDirectory(temporary);
    try {
      return await store.import(dir, call);
    } finally {
      rmSync(temporary, { recursive: true, force: true });
      closeSync(lock);
    }
  },
  async fork(host, { kind: _, from, ...options }, { signal }) {
    const origin = 'machine' in from ? await host.machine(from.machine) : from.snapshot;
    const forked = await host.fork(origin, { ...options, signal });
    return forked.map((each) => {
      if ('error' in each) return { error: each.error.toJSON() };
      each.machine.detach();
      return { machine: { id: each.machine.id, name: each.machine.name } };
    });
  },
};

onNote((sentence) => console.error(`note: ${sentence}`)); // into its log

async function readLaunch(): Promise<JobLaunch> {
  let text = '';
  for await (const part of process.stdin.setEncoding('utf8')) text += part;
  return JSON.parse(text);
}

async function work({ directory, storeDir, subject, startedAt, request }: JobLaunch): Promise<void> {
  const cancel = new AbortController();
  const cancelled = new LivesnapError('NOT_POSSIBLE_NOW', 'the job was cancelled');
  const stop = (): void => cancel.abort(cancelled);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);
  const look = (): void => {
    if (existsSync(join(directory, CANCEL))) stop();
  };
  const watcher = watch(directory, (_, name) => {
    if (name === CANCEL) look();
  });
  look(); // it may have been there before

  let record: JobRecord = {
    ...{ kind: request.kind, subject, state: 'running', startedAt, endedAt: null },
    ...{ progress: null, result: null, error: null },
  };
  let lastMs = 0;
  const onProgress = (doneBytes: number, totalBytes: number | null): void => {
    const nowMs = performance.now();
    if (nowMs - lastMs < PROGRESS_INTERVAL_MS) return;
    lastMs = nowMs;
    record = { ...record, progress: { doneBytes, totalBytes } };
    tell(directory, record);
  };
  let end: Partial<JobRecord>;
  try {
    const run = WORK[request.kind] as Work<JobKind>;
    const result = await run(new Host(storeDir), request as never, { signal: cancel.signal, onProgress });
    end = { state: 'done', result: result ?? null };
  } catch (error) {
    if (!(error instanceof LivesnapError)) console.error(error);
    end = { state: cancel.signal.aborted ? 'cancelled' : 'failed', error: asLivesnapError(error).toJSON() };
  }
  watcher.close();
  tell(directory, { ...record, ...end, endedAt: new Date().toISOString() });
}

/** A record that cannot be written is no failure of the work. */
function tell(directory: string, record: JobRecord): void {
  try {
    writeRecord(directory, record);
  } catch (error) {
    console.error(`the record of job ${basename(directory)} was not written: ${(error as Error).message}`);
  }
}

void readLaunch()
  .then(work)
  .then(
    () => process.exit(0), // Workers of the store may be kept for a minute
    (error: unknown) => {
      console.error(error);
      process.exit(1);
    },
  );
