/**
 * The saves of a machine as others see them: those that run or wait, and the last ones that have ended.
 *
 * Invariants:
 * - Saves that run are bounded in number, and so are those that are remembered.
 * - A save that is cancelled before it is committed leaves nothing. One that is committed is done.
 */
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineSaveResult } from '../vmm/machine-types.js';
import type { SaveJob, SaveRequest } from './control-api.js';

const MAX_RUNNING = 64;
const MAX_ENDED = 8;

type Work = (progress: Progress, signal: AbortSignal) => Promise<MachineSaveResult>;

interface Entry {
  job: SaveJob;
  readonly cancel: AbortController;
}

export class SaveJobs {
  readonly #entries: Entry[] = [];
  #last = 0;

  /** By age. */
  list(): readonly SaveJob[] {
    return this.#entries.map(({ job }) => job);
  }

  /**
   * Runs a save as a job. `signal` cancels it, too. Errors, in `done`: those of the work; NOT_POSSIBLE_NOW (cancelled, or
   * too many saves wait).
   */
  run(
    { tags, then }: Pick<SaveRequest, 'tags' | 'then'>,
    work: Work,
    progress: Progress = () => {},
    signal?: AbortSignal,
  ): { readonly job: SaveJob; readonly done: Promise<MachineSaveResult> } {
    if (this.#entries.filter(({ job }) => job.state === 'running').length >= MAX_RUNNING)
      throw new LivesnapError(
        'NOT_POSSIBLE_NOW',
        `${MAX_RUNNING} saves of this machine are waiting already`,
        {
          hint: 'Wait for one of them.',
        },
      );
    const cancel = new AbortController();
    const entry: Entry = {
      job: {
        number: ++this.#last,
        state: 'running',
        tags,
        then,
        startedAt: new Date().toISOString(),
        endedAt: null,
        progress: null,
        result: null,
        error: null,
      },
      cancel,
    };
    this.#entries.push(entry);
    const done = work(
      (doneBytes, totalBytes) => {
        entry.job = { ...entry.job, progress: { doneBytes, totalBytes } };
        progress(doneBytes, totalBytes);
      },
      signal === undefined ? cancel.signal : AbortSignal.any([cancel.signal, signal]),
    );
    done.then(
      (result) => this.#end(entry, { state: 'done', result }),
      (error: unknown) =>
        this.#end(entry, {
          state: cancel.signal.aborted || signal?.aborted ? 'cancelled' : 'failed',
          error: asLivesnapError(error).toJSON(),
        }),
    );
    return { job: entry.job, done };
  }

  #end(entry: Entry, end: Partial<SaveJob>): void {
    entry.job = { ...entry.job, ...end, endedAt: new Date().toISOString() };
    const ended = this.#entries.filter(({ job }) => job.state !== 'running');
    for (const old of ended.slice(0, Math.max(0, ended.length - MAX_ENDED)))
      this.#entries.splice(this.#entries.indexOf(old), 1);
  }

  /** Cancels a save that runs, or forgets one that has ended. Errors: NO_SUCH_JOB. */
  remove(number: number): void {
    const entry = this.#entries.find(({ job }) => job.number === number);
    if (entry === undefined)
      throw new LivesnapError('NO_SUCH_JOB', `there is no save ${number} of this machine`, {
        hint: 'Only the last saves are remembered.',
      });
    if (entry.job.state === 'running')
      entry.cancel.abort(new LivesnapError('NOT_POSSIBLE_NOW', 'the save was cancelled'));
    else this.#entries.splice(this.#entries.indexOf(entry), 1);
  }
}
