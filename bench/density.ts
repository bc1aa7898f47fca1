/**
 * What the process of a machine takes beside the RAM of the guest: private memory and threads, idle and after ten saves.
 * bench/README.md explains the table.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { projectRoot } from '../src/native/addon.js';
import { hostLoad, spread } from './figures.js';

const SAVES = 10;
/** A process that has just started or saved still frees memory. */
const REST_MS = 1000;

const { values: options } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, json: { type: 'boolean', default: false } },
});

const dir = mkdtempSync(join(projectRoot, 'dist/density-'));
const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
Object.assign(env, { XDG_RUNTIME_DIR: join(dir, 'run'), LIVESNAP_STORE: join(dir, 'store') });
mkdirSync(join(dir, 'run'), { mode: 0o700 });

function livesnap(...args: string[]): Record<string, unknown> {
  const ran = spawnSync(process.execPath, [join(projectRoot, 'dist/bin/livesnap.js'), ...args, '--json'], {
    env,
    encoding: 'utf8',
  });
  if (ran.status !== 0) throw new Error(`livesnap ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
  return JSON.parse(ran.stdout);
}

/**
 * The private memory of a process in MiB, and its threads. Neither guest RAM counts, which is in files of memfd_create,
 * nor unchanged pages of programs, which are shared as soon as a second machine runs.
 */
function measure(pid: number): { mib: number; threads: number } {
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

const idle: ReturnType<typeof measure>[] = [];
const saved: ReturnType<typeof measure>[] = [];
try {
  for (let round = 0; round < Number(options.rounds); round++) {
    const kernel = join(projectRoot, 'guest/build/probe.elf');
    const started = livesnap('start', '--kernel', kernel, '--memory', '64M', '--name', 'a', '--detach');
    const pid = started.pid as number;
    await sleep(REST_MS);
    idle.push(measure(pid));
    for (let n = 0; n < SAVES; n++) livesnap('save', 'a');
    await sleep(REST_MS);
    saved.push(measure(pid));
    livesnap('stop', 'a', '--force');
  }
} finally {
  rmSync(dir, { recursive: true });
}

if (options.json) process.stdout.write(`${JSON.stringify({ saves: SAVES, idle, saved })}\n`);
else {
  const row = (state: string, found: typeof idle): string =>
    `| ${state} | ${spread(
      found.map(({ mib }) => mib),
      1,
    )} | ${spread(
      found.map(({ threads }) => threads),
      0,
    )} |`;
  process.stdout.write(
    [
      `load ${hostLoad()}`,
      '| state | private MiB | threads |',
      '|---|---|---|',
      row('idle', idle),
      row(`after ${SAVES} saves`, saved),
      '',
    ].join('\n'),
  );
}
