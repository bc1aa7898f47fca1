/**
 * The jobs of the host as the API shows them: those with a process of their own (src/jobs), and saves, which live in the
 * processes of machines. The ID of a save is that of its machine and its number.
 */
import { asLivesnapError, LivesnapError } from '../errors.js';
import type { Host } from '../host/host.js';
import type { MachineInfo } from '../host/machine-info.js';
import type { Job as ProcessJob } from '../jobs/job-types.js';
import { type Jobs, noSuchJob } from '../jobs/jobs.js';
import type { SaveJob } from '../machine/control-api.js';
import { problemOf } from './problem.js';
import type { Job } from './schemas.js';

const SAVE_ID = /^([0-9a-f]{32})-([1-9][0-9]{0,14})$/;

export class ServerJobs {
  constructor(
    readonly host: Pick<Host, 'machine' | 'machines'>,
    readonly processes: Jobs,
  ) {}

  /** By age. `machines`: as they have just been found, or they are asked. */
  async list(machines?: readonly MachineInfo[]): Promise<Job[]> {
    const [processes, infos] = await Promise.all([
      this.processes.list(),
      machines ?? this.host.machines({ states: ['running', 'paused', 'stopped'] }),
    ]);
    const saves = infos.flatMap(({ id, name, saves }) =>
      id === null ? [] : saves.map((save) => ofSave(id, name, save)),
    );
    return [...processes.map(ofProcess), ...saves].sort((a, b) => (a.startedAt < b.startedAt ? -1 : 1));
  }

  /** Errors: NO_SUCH_JOB. */
  async find(id: string): Promise<Job> {
    const save = SAVE_ID.exec(id);
    if (save === null) return ofProcess(await this.processes.find(id));
    const { about } = await this.#machineOf(id, save[1]!);
    const found = about.saves.find(({ number }) => number === Number(save[2]));
    if (found === undefined) throw noSuchJob(id);
    return ofSave(about.id, about.name, found);
  }

  /** Cancels a job that runs, or forgets one that has ended. Errors: NO_SUCH_JOB. */
  async remove(id: string): Promise<void> {
    const save = SAVE_ID.exec(id);
    if (save === null) return this.processes.remove(id);
    await (await this.#machineOf(id, save[1]!)).client.removeSave(Number(save[2]));
  }

  async #machineOf(jobId: string, machineId: string) {
    return this.host.machine(machineId).catch((error: unknown) => {
      const { code } = asLivesnapError(error);
      throw code === 'NO_SUCH_MACHINE' || code === 'MACHINE_GONE' ? noSuchJob(jobId) : error;
    });
  }
}

function ofProcess({ error, ...job }: ProcessJob): Job {
  return { ...job, problem: error === null ? null : problemOf(LivesnapError.fromJSON(error)) };
}

export function ofSave(machineId: string, machineName: string, save: SaveJob): Job {
  const { number, state, startedAt, endedAt, progress, result, error } = save;
  return {
    id: `${machineId}-${number}`,
    kind: 'save',
    subject: machineName,
    ...{ state, startedAt, endedAt, progress, result },
    problem: error === null ? null : problemOf(LivesnapError.fromJSON(error)),
  };
}
