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

/** The processes of the machine of this name in this run directory. */
export const processesOf = (name: string, runDir: string): number[] =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
        return (
          words[1]?.endsWith('machine-process.js') &&
          words[2] === name &&
          environment.includes(`XDG_RUNTIME_DIR=${runDir}`)
        );
      } catch {
        return false;
      }
    });
