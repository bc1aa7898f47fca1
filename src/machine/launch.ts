/**
 * Starts a machine in a process of its own and waits until the machine runs.
 *
 * The process is in a session of its own and outlives its starter, but if the starter dies before the machine is ready,
 * it ends. A machine that has ended keeps its API up until the starter closes the channel, so that the starter can always
 * read how it ended.
 */
import { closeSync, openSync } from 'node:fs';
import { sendFiles } from '../native/passed-files.js';
import type { Progress } from '../page-stream.js';
import type { MachineDescription } from './control-api.js';
import type { LaunchRequest } from './launch-messages.js';
import { packDisks } from './passed-disks.js';
import { type ClaimedRunDirectory, runDirectoryError } from './run-directory.js';
import { WaitingProcess } from './waiting-process.js';

export interface Launched {
  readonly machine: MachineDescription;
  /** Closes the channel: the starter has read how the machine ended, or does not want to. */
  letGo(): void;
}

/** Errors: NO_SPACE, SYSTEM. */
function openLog(directory: ClaimedRunDirectory): number {
  try {
    return openSync(directory.log, 'a+', 0o600);
  } catch (error) {
    throw runDirectoryError(directory.path, 'write to', error);
  }
}

/** Gives the process the request, with the lock and the log of the run directory, and open files of disks. */
function send(
  waiting: WaitingProcess,
  directory: ClaimedRunDirectory,
  request: Omit<LaunchRequest, 'root' | 'name'>,
): void {
  const log = openLog(directory);
  const { origin, fds } = packDisks(request.origin);
  try {
    waiting.send(
      { ...request, origin, root: directory.root, name: directory.name },
      directory.log,
      (socket) => sendFiles(socket, [directory.lockFd, log, ...fds]),
    );
  } finally {
    closeSync(log);
  }
}

/**
 * Resolves when the machine runs. The directory's lock passes to the process. When this fails, the process has ended and
 * the directory is removed. `waiting`: a process that was spawned before (default: a new one). Errors: those of the
 * machine's start or restore; MACHINE_FAILED.
 */
export async function launch(
  directory: ClaimedRunDirectory,
  request: Omit<LaunchRequest, 'root' | 'name'>,
  progress: Progress = () => {},
  waiting = new WaitingProcess(request.origin.kind),
): Promise<Launched> {
  try {
    const machine = await new Promise<MachineDescription>((resolve, reject) => {
      waiting.onReport = (report) => {
        if ('progress' in report) progress(report.progress.doneBytes, report.progress.totalBytes);
        else if ('ready' in report) resolve(report.ready);
      };
      void waiting.ended.then(reject);
      send(waiting, directory, request);
    });
    return { machine, letGo: () => waiting.letGo() };
  } catch (error) {
    await waiting.kill();
    await directory.remove();
    throw error;
  } finally {
    directory.release();
    waiting.unref();
  }
}
