/**
 * Starting a machine's process and hearing from it until it runs. The process is a session of its own and
 * outlives its starter; until it is ready, the starter's death ends it. A machine that ends keeps its API up until
 * its starter has let go of it, so that the starter can always hear how it ended.
 *
 * What they say to each other goes over Node's IPC channel: one LaunchRequest down, LaunchReports up.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LivesnapError, type PlainError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineConfig } from '../vmm/machine-types.js';
import type { MachineDescription } from './control-api.js';
import { type ClaimedRunDirectory, runDirectoryError } from './run-directory.js';

export interface LaunchRequest {
  readonly root: string;
  readonly name: string;
  /** Absolute path of the store that saves go to. */
  readonly storeDir: string;
  readonly port: number | null;
  readonly origin:
    | { readonly kind: 'start'; readonly config: MachineConfig }
    /** `from`: absolute path of the store that is read; an exported directory is none that saves go to. */
    | { readonly kind: 'restore'; readonly from: string; readonly snapshot: string };
}

export type LaunchReport =
  | { readonly progress: { readonly doneBytes: number; readonly totalBytes: number | null } }
  | { readonly ready: MachineDescription }
  | { readonly error: PlainError };

export interface Launched {
  readonly machine: MachineDescription;
  /** To be called when the starter has joined the machine to its end, or does not mean to. */
  letGo(): void;
}

/** The descriptor through which the process holds its run directory's lock. */
export const LOCK_FD = 4;

/** The last sentence of a log, for a process that ended without a word: not a line of a stack, or Node's version. */
function lastWords(log: string): string | null {
  try {
    const lines = readFileSync(log, 'utf8').split('\n');
    return lines.findLast((line) => !/^(\s|Node\.js v|$)/.test(line))?.slice(0, 300) ?? null;
  } catch {
    return null;
  }
}

/** Errors: NO_SPACE. Then the directory is removed. */
async function openLog(directory: ClaimedRunDirectory): Promise<number> {
  try {
    return openSync(directory.log, 'a', 0o600);
  } catch (error) {
    await directory.remove();
    directory.release();
    throw runDirectoryError(directory.path, error);
  }
}

/**
 * Starts the process and resolves when the machine runs. The directory's lock passes to the process; when
 * it fails the directory is removed. Errors: what the machine's start or restore raises; MACHINE_FAILED.
 */
export async function launch(
  directory: ClaimedRunDirectory,
  request: Omit<LaunchRequest, 'root' | 'name'>,
  progress: Progress = () => {},
): Promise<Launched> {
  const log = await openLog(directory);
  const child = spawn(
    process.execPath,
    [join(dirname(fileURLToPath(import.meta.url)), 'vm-process.js'), directory.name],
    {
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log, 'ipc', directory.lockFd],
    },
  );
  closeSync(log);
  const letGo = () => {
    if (child.connected) child.disconnect();
  };
  try {
    const machine = await new Promise<MachineDescription>((resolve, reject) => {
      let failure: LivesnapError | null = null;
      child.on('error', reject);
      child.on('message', (report: LaunchReport) => {
        if ('progress' in report) progress(report.progress.doneBytes, report.progress.totalBytes);
        else if ('ready' in report) resolve(report.ready);
        else failure = LivesnapError.fromJSON(report.error);
      });
      // An error is final when the process is gone, and with it all that it held.
      child.on('exit', (status, signal) => {
        const fail = () => {
          const words = lastWords(directory.log);
          reject(
            failure ??
              new LivesnapError(
                'MACHINE_FAILED',
                `the machine's process ended before the machine ran (${signal ?? `exit status ${status}`})`,
                words === null ? {} : { hint: `Its log ends with: ${words}` },
              ),
          );
        };
        // What the process said last may come after the news of its exit.
        if (child.connected) child.once('disconnect', fail);
        else fail();
      });
      child.send(
        { ...request, root: directory.root, name: directory.name } satisfies LaunchRequest,
        (error) => {
          if (error !== null && child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
        },
      );
    });
    return { machine, letGo };
  } catch (error) {
    letGo();
    await directory.remove();
    throw error;
  } finally {
    directory.release();
    child.removeAllListeners();
    child.on('error', () => {});
    child.channel?.unref();
    child.unref();
  }
}
