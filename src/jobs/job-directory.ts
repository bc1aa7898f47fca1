/**
 * The directory of a job, `.jobs/ID` among the run directories: its lock, its record, its log, and the wish to cancel it.
 *
 * Invariants:
 * - The process of a job holds the lock as long as it lives, so a job is known to have died, whatever killed it.
 * - The record is replaced in one step, by the holder of the lock alone.
 * - Nobody signals a process by a number in a file: another process may have that number by then.
 */
import { closeSync, constants, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkRunRoot, runDirectoryError } from '../machine/run-directory.js';
import { tryLock } from '../native/locks.js';
import type { Job, JobRecord } from './job-types.js';

/** Never the name of a machine. */
const FOLDER = '.jobs';
const ID = /^[0-9a-f]{32}$/;

export const jobsFolder = (root: string): string => join(root, FOLDER);

/** The file that is there once a job is to be cancelled. */
export const CANCEL = 'cancel';

/** Replaces the record. For the process of the job. */
export function writeRecord(directory: string, record: JobRecord): void {
  const draft = join(directory, 'job.json.new');
  writeFileSync(draft, `${JSON.stringify(record)}\n`, { mode: 0o600 });
  renameSync(draft, join(directory, 'job.json'));
}

export class JobDirectory {
  readonly path: string;

  /** `id`: checked by {@link JobDirectory.at}. */
  private constructor(
    readonly root: string,
    readonly id: string,
  ) {
    this.path = join(jobsFolder(root), id);
  }

  /** Null: this is no ID. */
  static at(root: string, id: string): JobDirectory | null {
    return ID.test(id) ? new JobDirectory(root, id) : null;
  }

  static async list(root: string): Promise<JobDirectory[]> {
    const names = await readdir(jobsFolder(root)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return [];
      throw runDirectoryError(jobsFolder(root), 'read', error);
    });
    return names.filter((name) => ID.test(name)).map((name) => new JobDirectory(root, name));
  }

  get log(): string {
    return join(this.path, 'log');
  }

  /** Creates the directory with its record, and returns the descriptor of its lock. Errors: NO_SPACE, SYSTEM. */
  async create(record: JobRecord): Promise<number> {
    await checkRunRoot(this.root);
    try {
      await mkdir(jobsFolder(this.root), { mode: 0o700, recursive: true });
      await mkdir(this.path, { mode: 0o700 });
      const fd = openSync(
        join(this.path, 'lock'),
        constants.O_CREAT | constants.O_EXCL | constants.O_RDWR,
        0o600,
      );
      if (!tryLock(fd, 'exclusive')) throw new Error('the lock of a new directory is taken');
      writeRecord(this.path, record);
      return fd;
    } catch (error) {
      rmSync(this.path, { recursive: true, force: true });
      throw runDirectoryError(this.path, 'create', error);
    }
  }

  /** Null: there is no such job. */
  async read(): Promise<Job | null> {
    const isDead = this.#isDead(); // before the record is read: it may end between the two
    if (isDead === null) return null;
    let record: JobRecord;
    try {
      record = JSON.parse(await readFile(join(this.path, 'job.json'), 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return null;
      throw runDirectoryError(this.path, 'read', error);
    }
    if (record.state !== 'running' || !isDead) return { ...record, id: this.id };
    return {
      ...record,
      id: this.id,
      state: 'failed',
      error: {
        code: 'SYSTEM',
        message: 'the process of the job died',
        hint: `What it had committed stays. Its log is ${this.log}.`,
      },
    };
  }

  /** Whether the process has ended; null: there is no job. */
  #isDead(): boolean | null {
    let fd: number;
    try {
      fd = openSync(join(this.path, 'lock'), constants.O_RDWR | constants.O_NOFOLLOW);
    } catch {
      return null;
    }
    try {
      return tryLock(fd, 'shared');
    } finally {
      closeSync(fd);
    }
  }

  /** Tells the process to end the work. What is committed by then stays. */
  cancel(): void {
    try {
      writeFileSync(join(this.path, CANCEL), '', { mode: 0o600 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        throw runDirectoryError(this.path, 'write to', error);
    }
  }

  /** Forgets a job that has ended. */
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
