/**
 * Starts the process of a machine and waits until the machine runs.
 *
 * The two processes use Node's IPC channel: one {@link LaunchRequest} to the machine's process, {@link LaunchReport}s
 * back. The process is in a session of its own and outlives its starter, but if the starter dies before the machine is
 * ready, it ends. A machine that has ended keeps its API up until the starter closes the channel, so that the starter
 * can always read how it ended.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LivesnapError, type PlainError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { DiskRequest } from '../vmm/disk/disk-config.js';
import type { RestoreClock } from '../vmm/kvm/guest-time.js';
import type { MachineConfig } from '../vmm/machine-types.js';
import type { NetConnection, NetRequest } from '../vmm/net/net-config.js';
import type { MachineDescription } from './control-api.js';
import { type ClaimedRunDirectory, runDirectoryError } from './run-directory.js';

/** The starter file, typed into the console (starter.ts). A restored machine types the lines that its snapshot has. */
export interface StarterRequest {
  /** Without line ends. Empty for a restore. */
  readonly lines: readonly string[];
  /** Source of a regular expression. Null: the default. */
  readonly prompt: string | null;
}

export interface LaunchRequest {
  readonly root: string;
  readonly name: string;
  /** Absolute path of the default store of saves. */
  readonly storeDir: string;
  readonly port: number | null;
  /** Absolute path of the directory for what the machine writes to its disks. Null: that of the store. */
  readonly overlayDir: string | null;
  readonly starter: StarterRequest;
  readonly origin:
    | {
        readonly kind: 'start';
        readonly config: MachineConfig;
        readonly disks: readonly DiskRequest[];
        readonly nets?: readonly NetRequest[];
      }
    /** `from`: absolute path of the store to read. It differs from `storeDir` for an exported directory. */
    | {
        readonly kind: 'restore';
        readonly from: string;
        readonly snapshot: string;
        readonly clock: RestoreClock;
        readonly nets?: readonly NetConnection[];
        /** A clone beside the original. */
        readonly asNew?: boolean;
        /** Whether RAM is filled while the machine runs, where that is possible (default: before it runs). */
        readonly lazy?: boolean;
      };
}

export type LaunchReport =
  | { readonly progress: { readonly doneBytes: number; readonly totalBytes: number | null } }
  | { readonly ready: MachineDescription }
  | { readonly error: PlainError };

export interface Launched {
  readonly machine: MachineDescription;
  /** Closes the channel: the starter has read how the machine ended, or does not want to. */
  letGo(): void;
}

/** The descriptor in the machine's process that holds the lock of its run directory. */
export const LOCK_FD = 4;

/** The last line of a log that is not part of a stack, for a process that died without a report. */
function lastSentence(log: string): string | null {
  try {
    const lines = readFileSync(log, 'utf8').split('\n');
    return lines.findLast((line) => !/^(\s|Node\.js v|$)/.test(line))?.slice(0, 300) ?? null;
  } catch {
    return null;
  }
}

/** Removes the directory when it fails. Errors: NO_SPACE, SYSTEM. */
async function openLog(directory: ClaimedRunDirectory): Promise<number> {
  try {
    return openSync(directory.log, 'a', 0o600);
  } catch (error) {
    await directory.remove();
    directory.release();
    throw runDirectoryError(directory.path, 'write to', error);
  }
}

/**
 * Starts the process and resolves when the machine runs. The directory's lock passes to the process. When this fails,
 * the directory is removed. Errors: those of the machine's start or restore; MACHINE_FAILED.
 */
export async function launch(
  directory: ClaimedRunDirectory,
  request: Omit<LaunchRequest, 'root' | 'name'>,
  progress: Progress = () => {},
): Promise<Launched> {
  const log = await openLog(directory);
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL('./machine-process.js', import.meta.url)), directory.name],
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
      // An error counts once the process has exited, and has released everything.
      child.on('exit', (status, signal) => {
        const fail = () => {
          const sentence = lastSentence(directory.log);
          reject(
            failure ??
              new LivesnapError(
                'MACHINE_FAILED',
                `the machine's process ended before the machine ran (${signal ?? `exit status ${status}`})`,
                sentence === null ? {} : { hint: `Its log ends with: ${sentence}` },
              ),
          );
        };
        // The last report may arrive after the exit event.
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
