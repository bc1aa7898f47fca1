/** What the process of a machine takes beside the RAM of the guest: private memory and threads, idle and after ten saves. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommandLine, PROBE } from '../harness/command-line.js';
import type { Context, Entry, Figure } from '../harness/figure.js';

const SAVES = 10;
/** A process that has just started or saved still frees memory. */
const REST_MS = 1000;

/**
 * The private memory of a process in MiB, and its threads. Neither guest RAM counts, which is in files of memfd_create,
 * nor unchanged pages of programs, which are shared as soon as a second machine runs.
 */
function inspect(pid: number): { mib: number; threads: number } {
  let kib = 0;
  let isRam = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'latin1').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isRam = line.includes('/memfd:');
    const size = /^Private_Dirty: +(\d+) kB$/.exec(line);
    if (size && !isRam) kib += Number(size[1]);
  }
  // A thread of the kernel that KVM adds to a process with a VM.
  const isOwn = (task: string): boolean =>
    !readFileSync(`/proc/${pid}/task/${task}/comm`, 'latin1').startsWith('kvm-nx-');
  return { mib: kib / 1024, threads: readdirSync(`/proc/${pid}/task`).filter(isOwn).length };
}

async function measure({ dir, rounds }: Context): Promise<readonly Figure[]> {
  const commands = new CommandLine(dir);
  const idle: ReturnType<typeof inspect>[] = [];
  const saved: ReturnType<typeof inspect>[] = [];
  for (let round = 0; round < rounds; round++) {
    const started = commands.json('start', '--kernel', PROBE, '--memory', '64M', '--name', 'a', '--detach');
    const pid = started.pid as number;
    await sleep(REST_MS);
    idle.push(inspect(pid));
    for (let n = 0; n < SAVES; n++) commands.run('save', 'a');
    await sleep(REST_MS);
    saved.push(inspect(pid));
    commands.run('stop', 'a', '--force');
  }
  const common = { reference: null, margin: 0.15 };
  const mib = (all: typeof idle): number[] => all.map((each) => each.mib);
  const threads = (all: typeof idle): number[] => all.map((each) => each.threads);
  const after = `after ${SAVES} saves`;
  return [
    { ...common, name: 'density: private, idle', unit: 'MiB', values: mib(idle), target: 22 },
    { ...common, name: `density: private, ${after}`, unit: 'MiB', values: mib(saved), target: 40 },
    { ...common, name: 'density: idle', unit: 'threads', values: threads(idle), target: 8 },
    { ...common, name: `density: ${after}`, unit: 'threads', values: threads(saved), target: 8 },
  ];
}

export const entry: Entry = { summary: 'memory and threads of a machine beside its RAM', measure };
