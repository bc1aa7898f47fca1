/** What the process of a machine uses of its host. */
import { readFileSync } from 'node:fs';

export interface ProcessUsage {
  /** Processor time of all vCPUs and threads since the process was started. */
  readonly cpuSeconds: number;
  /** Memory of the guest that the host has given so far. The rest was never touched, or was given back. */
  readonly touchedBytes: number;
}

/** proc(5): guest memory is the only shared memory of the process that is not a file. */
const SHARED_MEMORY = /^RssShmem:\s+(\d+) kB$/m;

export function processUsage(): ProcessUsage {
  const { user, system } = process.cpuUsage();
  return {
    cpuSeconds: Math.round((user + system) / 1000) / 1000,
    touchedBytes: Number(SHARED_MEMORY.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? 0) * 1024,
  };
}
