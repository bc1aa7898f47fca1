/**
 * How long a machine is paused in a save, over many saves, and where that time goes. In the threads of a real machine: the
 * main thread, the device thread and the store thread.
 *
 * - idle: the guest only ticks; 256 MiB of RAM.
 * - dirty: it rewrites 10,000 pages a second.
 * - disk: it writes to its disk all the time.
 * - large: the guest only ticks; 4 GiB of RAM, of which little is used.
 */
import { once } from 'node:events';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { StoreThread } from '../../src/machine/store-thread-client.js';
import { projectRoot } from '../../src/native/project-root.js';
import { Machine } from '../../src/vmm/machine.js';
import type { MachineSaveResult } from '../../src/vmm/machine-types.js';
import { buildGuest } from '../../test/hostile/guests.js';
import { type Context, type Entry, type Figure, quantile } from '../harness/figure.js';

const MIB = 1 << 20;
const DISK_BYTES = 2048 * MIB;
const PROBE = join(projectRoot, 'guest/build/probe.bzImage');
/** Between two saves. The guest works meanwhile. */
const BETWEEN_MS = 20;

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

async function bootDisk(dir: string): Promise<Machine> {
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
const cases: Record<string, (dir: string) => Promise<Machine>> = {
  idle: () => bootProbe(256 * MIB, FILL),
  dirty: () => bootProbe(256 * MIB, [...FILL, 'dirty 10000']),
  disk: bootDisk,
  large: () => bootProbe(4096 * MIB, FILL),
};

/** Saves of each guest: p99 of fewer is the longest. */
const SAVES = 100;
const PHASES = ['parkMs', 'harvestMs', 'copyMs', 'drainMs', 'stateMs', 'resumeMs'] as const;
/** The targets, by guest and quantile. */
const TARGETS: Record<string, number> = { 'idle p99': 5, 'dirty p90': 3, 'large p99': 10 };

async function savesOf(
  stores: StoreThread,
  dir: string,
  name: string,
  boot: (dir: string) => Promise<Machine>,
): Promise<readonly MachineSaveResult[]> {
  const store = await stores.open(join(dir, name), { write: true, create: true });
  const machine = await boot(dir);
  const saves: MachineSaveResult[] = [];
  const save = () => machine.save(store, { vm: 'bench', tags: [], then: null });
  await save();
  for (let i = 0; i < SAVES; i++) {
    await sleep(BETWEEN_MS);
    saves.push(await save());
  }
  await machine.stop();
  await store.close();
  return saves;
}

async function measure({ dir }: Context): Promise<readonly Figure[]> {
  const stores = new StoreThread({ log: (sentence) => process.stderr.write(`${sentence}\n`) });
  const figures: Figure[] = [];
  for (const [name, boot] of Object.entries(cases)) {
    const saves = await savesOf(stores, dir, name, boot);
    const values = saves.map(({ pauseMs }) => pauseMs);
    for (const part of [90, 99]) {
      const what = `${name} p${part}`;
      figures.push({
        // One value of all saves: the figure of all saves below has the spread.
        ...{ name: `pauses: ${what} of ${SAVES} saves`, unit: 'ms', values: [quantile(values, part / 100)] },
        // The tail is scheduling: it varies by factors on a shared host.
        ...{ reference: null, target: TARGETS[what] ?? null, margin: 4 },
      });
    }
    figures.push({
      ...{ name: `pauses: ${name}, all saves`, unit: 'ms', values, reference: null, target: null, margin: 1 },
    });
    for (const phase of PHASES)
      figures.push({
        ...{ name: `pauses: ${name}, ${phase}`, unit: 'ms', reference: null, target: null, margin: 4 },
        values: saves.map(({ pausePhases }) => pausePhases![phase]),
      });
  }
  await stores.end();
  return figures;
}

export const entry: Entry = { summary: 'how long machines are paused in saves, and why', measure };
