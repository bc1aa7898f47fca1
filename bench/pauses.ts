/**
 * How long a machine is paused in a save, over many saves, and where that time goes. In the threads of a real machine: the
 * main thread, the device thread and the store thread.
 *
 *     node dist/bench/pauses.js [--only idle,dirty,disk,large] [--saves N] [--dir DIR] [--json]
 *
 * - idle: the guest only ticks; 256 MiB of RAM.
 * - dirty: it rewrites 10,000 pages a second.
 * - disk: it writes to its disk all the time.
 * - large: the guest only ticks; 4 GiB of RAM, of which little is used.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { projectRoot } from '../src/native/project-root.js';
import { StoreThread } from '../src/server/store-thread-client.js';
import { Machine } from '../src/vmm/machine.js';
import type { MachineSaveResult, PausePhases } from '../src/vmm/machine-types.js';
import { buildGuest } from '../test/hostile/guests.js';
import { hostLoad } from './figures.js';

const MIB = 1 << 20;
const DISK_BYTES = 2048 * MIB;
const PROBE = join(projectRoot, 'guest/build/probe.bzImage');
/** Between two saves. The guest works meanwhile. */
const BETWEEN_MS = 20;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: 'idle,dirty,disk,large' },
    saves: { type: 'string', default: '100' },
    /** Where images and stores are. In /dev/shm an fsync costs nothing, so the figures are the program's own. */
    dir: { type: 'string', default: join(projectRoot, 'dist') },
    json: { type: 'boolean', default: false },
  },
});
const dir = mkdtempSync(join(options.dir, 'bench-pauses-'));
const stores = new StoreThread({ log: (sentence) => process.stderr.write(`${sentence}\n`) });

/** Sends a line or a command of one character, and waits for an answer that has `text`. */
async function ask(machine: Machine, command: string, text: string): Promise<void> {
  machine.writeConsole(Buffer.from(command, 'latin1'));
  for (let output = ''; !output.includes(text); ) {
    const [bytes] = (await once(machine, 'console')) as [Uint8Array];
    output += Buffer.from(bytes).toString('latin1');
  }
}

async function bootProbe(memoryBytes: number, commands: readonly string[]): Promise<Machine> {
  const machine = await Machine.create({ kernel: PROBE, initrd: null, cmdline: null, memoryBytes, cpus: 1 });
  await machine.resume();
  await ask(machine, '\n', 'READY');
  for (const command of commands) await ask(machine, `${command}\n`, 'OK');
  return machine;
}

async function bootDisk(): Promise<Machine> {
  const kernel = buildGuest(join(projectRoot, 'bench/guests/disk-load.S'), join(dir, 'disk-load'));
  const image = join(dir, 'image');
  writeFileSync(image, '');
  truncateSync(image, DISK_BYTES);
  const machine = await Machine.create(
    { kernel, initrd: null, cmdline: null, memoryBytes: 64 * MIB, cpus: 1 },
    {
      disks: [{ source: { kind: 'file', path: image }, mode: 'rw', onError: 'pause' }],
      host: { overlayDir: dir, openStore: () => Promise.reject(new Error('no disk is a snapshot')) },
    },
  );
  await machine.resume();
  await ask(machine, 'g', '\n');
  machine.writeConsole(Buffer.from('l'));
  return machine;
}

const FILL = ['fill 1 48', 'text 2 48'];
const cases: Record<string, () => Promise<Machine>> = {
  idle: () => bootProbe(256 * MIB, FILL),
  dirty: () => bootProbe(256 * MIB, [...FILL, 'dirty 10000']),
  disk: bootDisk,
  large: () => bootProbe(4096 * MIB, FILL),
};

/** The least value that is at least as large as this part of the values. */
const quantile = (sorted: readonly number[], part: number): number =>
  sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)]!;

interface Summary {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

interface Result {
  readonly case: string;
  readonly saves: number;
  readonly pauseMs: Summary;
  readonly phases: Readonly<Record<string, Summary>>;
}

const PHASES = ['parkMs', 'harvestMs', 'copyMs', 'drainMs', 'stateMs', 'resumeMs'] as const;

const line = ({ p50, p90, p99, max }: Summary): string =>
  [p50, p90, p99, max].map((ms) => ms.toFixed(2).padStart(8)).join('');

function summary(values: readonly number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  return {
    p50: quantile(sorted, 0.5),
    p90: quantile(sorted, 0.9),
    p99: quantile(sorted, 0.99),
    max: sorted.at(-1)!,
  };
}

async function measure(name: string, boot: () => Promise<Machine>): Promise<Result> {
  const store = await stores.open(join(dir, name), { write: true, create: true });
  const machine = await boot();
  const saves: MachineSaveResult[] = [];
  const save = () => machine.save(store, { vm: 'bench', tag: null, then: null });
  await save();
  for (let i = 0; i < Number(options.saves); i++) {
    await sleep(BETWEEN_MS);
    saves.push(await save());
  }
  await machine.stop();
  await store.close();
  const phases = saves.map(({ pausePhases }) => pausePhases!);
  const ofPhase = (phase: keyof PausePhases) => summary(phases.map((each) => each[phase]));
  return {
    case: name,
    saves: saves.length,
    pauseMs: summary(saves.map(({ pauseMs }) => pauseMs)),
    phases: Object.fromEntries(PHASES.map((phase) => [phase, ofPhase(phase)])),
  };
}

try {
  const results: Result[] = [];
  if (!options.json) console.log(`the load of the host: ${hostLoad()}; milliseconds: p50 p90 p99 max`);
  for (const [name, boot] of Object.entries(cases)) {
    if (!options.only.split(',').includes(name)) continue;
    const result = await measure(name, boot);
    results.push(result);
    if (options.json) continue;
    console.log(`${name.padEnd(18)}${line(result.pauseMs)}`);
    for (const phase of PHASES) console.log(`  ${phase.padEnd(16)}${line(result.phases[phase]!)}`);
  }
  if (options.json) console.log(JSON.stringify({ load: hostLoad(), results }));
} finally {
  await stores.end();
  rmSync(dir, { recursive: true, force: true });
}
