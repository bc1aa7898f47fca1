/** Processes of machines, as /proc shows them. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Whether the process runs. A zombie does not. */
export const alive = (pid: number): boolean => {
  try {
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
};

/** Resolves when the process has ended. */
export const gone = async (pid: number): Promise<void> => {
  while (alive(pid)) await sleep(10);
};

/** The command line and the environment of a process; empty for one that has ended or belongs to another user. */
function wordsOf(pid: number): { command: string[]; environment: string[] } {
  const read = (file: string): string[] => {
    try {
      return readFileSync(`/proc/${pid}/${file}`, 'latin1').split('\0');
    } catch {
      return [];
    }
  };
  return { command: read('cmdline'), environment: read('environ') };
}

/** The processes of machines with this run directory, also those that wait for a machine. */
export const machineProcesses = (runDir: string): number[] =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .map(Number)
    .filter((pid) => {
      const { command, environment } = wordsOf(pid);
      return (
        /machine-process\.js/.test(command.slice(0, 2).join(' ')) &&
        environment.includes(`XDG_RUNTIME_DIR=${runDir}`) &&
        alive(pid)
      );
    });

/** The processes of the machine of this name in this run directory. */
export const processesOf = (name: string, runDir: string): number[] =>
  machineProcesses(runDir).filter((pid) => wordsOf(pid).command[0] === `livesnap machine-process.js ${name}`);
