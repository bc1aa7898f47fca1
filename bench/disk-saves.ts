/**
 * Saves of machines with disks, in the threads of a real machine: the main thread, the device thread and the store thread.
 *
 *     node dist/bench/disk-saves.js [--only changed,load,full] [--rounds N] [--saves N] [--dir DIR]
 *
 * - changed: a save of a disk of 2 GiB of which 1% changed, against the same save of a machine without the disk plus a
 *   read of the changed blocks. Also against that plus what the store needs for the same new pages without a machine.
 *   Once the changed blocks follow each other, once every hundredth block changed, the most that a save has to do.
 * - load: the pauses of saves while the guest writes to its disk all the time.
 * - full: the first save of a disk of 1 GiB, against `put` of the same file.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { type StoreProxy, StoreThread } from '../src/machine/store-thread-client.js';
import { projectRoot } from '../src/native/project-root.js';
import { BATCH_PAGES, type PageRun, type PageSource } from '../src/page-stream.js';
import { Machine } from '../src/vmm/machine.js';
import { argumentsOf } from '../test/arguments.js';
import { buildGuest } from '../test/hostile/guests.js';
import { hostLoad, median, mixedMemory, spread } from './figures.js';

const MIB = 1 << 20;
const BLOCK_BYTES = 4096;
const DISK_BYTES = 2048 * MIB;
const FULL_BYTES = 1024 * MIB;
const DISK_BLOCKS = DISK_BYTES / BLOCK_BYTES;
const CHANGED_BLOCKS = Math.ceil(DISK_BLOCKS / 100);
/** The commands of guests/disk-load.S, and the distances of the blocks that they change. */
const CHANGES = [
  { command: 'c', step: 1, name: 'blocks that follow each other' },
  { command: 'n', step: 100, name: 'every hundredth block' },
] as const;

const { values: options } = argumentsOf('bench:disk-saves', {
  options: {
    only: { type: 'string', default: 'changed,load,full' },
    rounds: { type: 'string', default: '5' },
    saves: { type: 'string', default: '30' },
    /** Where images and stores are. In /dev/shm an fsync costs nothing, so the figures are the program's own. */
    dir: { type: 'string', default: join(projectRoot, 'dist') },
  },
});
const rounds = Number(options.rounds);
const dir = mkdtempSync(join(options.dir, 'bench-disks-'));
const stores = new StoreThread({ log: (sentence) => process.stderr.write(`${sentence}\n`) });
const kernel = join(dir, 'kernel');

const openStore = (name: string): Promise<StoreProxy> =>
  stores.open(join(dir, name), { write: true, create: true });

/** A file with `dataBytes` of mixed pages, each stored once. The rest, and a quarter of that, is not allocated. */
function makeImage(name: string, sizeBytes: number, dataBytes: number): string {
  const path = join(dir, name);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, sizeBytes);
  const part = 64 * MIB;
  const bytes = mixedMemory(part);
  for (let at = 0; at < dataBytes; at += part) {
    for (let page = part / 4; page < part; page += BLOCK_BYTES)
      bytes.writeUInt32LE((at + page) / BLOCK_BYTES, page);
    writeSync(fd, bytes, part / 4, (part * 3) / 4, at + part / 4);
  }
  closeSync(fd);
  return path;
}

/** A machine with the disk, or without one. */
async function boot(image: string | null): Promise<Machine> {
  const machine = await Machine.create(
    { kernel, initrd: null, cmdline: null, memoryBytes: 64 * MIB, cpus: 1 },
    {
      disks: image === null ? [] : [{ source: { kind: 'file', path: image }, mode: 'rw', onError: 'pause' }],
      host: { overlayDir: dir, openStore: () => Promise.reject(new Error('no disk is a snapshot')) },
    },
  );
  machine.on('problem', (problem) => process.stderr.write(`${problem}\n`));
  await machine.resume();
  return machine;
}

/** Sends a command, and waits for the end of the answer. */
async function ask(machine: Machine, command: string): Promise<void> {
  machine.writeConsole(Buffer.from(command, 'latin1'));
  for (;;) {
    const [bytes] = (await once(machine, 'console')) as [Uint8Array];
    if (bytes.includes(10)) return;
  }
}

const save = (machine: Machine, store: StoreProxy) =>
  machine.save(store, { vm: 'bench', tags: [], then: null });

function timed(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function readChanged(image: string, step: number): void {
  const fd = openSync(image, 'r');
  const bytes = Buffer.alloc(BLOCK_BYTES);
  for (let i = 0; i < CHANGED_BLOCKS; i++) readSync(fd, bytes, 0, BLOCK_BYTES, i * step * BLOCK_BYTES);
  closeSync(fd);
}

/** The changed blocks of the image, read on this thread. */
class ChangedBlocks implements PageSource {
  readonly regions = [{ name: 'disk0', sizeBytes: DISK_BYTES }];
  readonly sequential = [0];
  readonly #fd: number;
  readonly #step: number;
  #done = 0;

  constructor(image: string, step: number) {
    this.#fd = openSync(image, 'r');
    this.#step = step;
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const left = CHANGED_BLOCKS - this.#done;
    if (left === 0) {
      closeSync(this.#fd);
      return null;
    }
    const pages = Uint32Array.from(
      { length: Math.min(left, BATCH_PAGES) },
      (_, i) => (this.#done + i) * this.#step,
    );
    pages.forEach((page, i) => {
      readSync(this.#fd, into, i * BLOCK_BYTES, BLOCK_BYTES, page * BLOCK_BYTES);
    });
    this.#done += pages.length;
    return { region: 0, pages };
  }
}

/** Stores the changed blocks on a snapshot that has the rest of the disk. Returns milliseconds. */
async function storeChanged(store: StoreProxy, base: string, image: string, step: number): Promise<number> {
  const started = performance.now();
  const regions = [{ region: 'disk0', bases: [{ snapshot: base, region: 'disk0' }] }];
  const session = await store.beginSave({ regions, tags: [] });
  await session.store(new ChangedBlocks(image, step));
  await session.commit({
    kind: 'disk',
    vm: 'bench',
    tags: [],
    memoryBytes: 0,
    diskBytes: DISK_BYTES,
    machine: null,
    host: null,
    state: new Uint8Array(0),
  });
  return performance.now() - started;
}

async function measureChanged(image: string): Promise<void> {
  const store = await openStore('changed');
  const other = await openStore('other');
  const withDisk = await boot(image);
  const without = await boot(null);
  await ask(withDisk, 'g');
  const first = await save(withDisk, store);
  console.log(`the first save of the disk of 2 GiB        ${first.saveMs} ms`);
  await save(without, store);
  const base = await save(withDisk, other);
  for (const { command, step, name } of CHANGES) {
    const [disk, ram, read, ratio, idle, stored, share]: number[][] = [[], [], [], [], [], [], []];
    let changed = 0;
    for (let round = 0; round < rounds; round++) {
      await ask(withDisk, command);
      ram!.push((await save(without, store)).saveMs);
      const saved = await save(withDisk, store);
      disk!.push(saved.saveMs);
      changed = saved.newChunks;
      read!.push(timed(() => readChanged(image, step)));
      ratio!.push(disk![round]! / (ram![round]! + read![round]!));
      stored!.push(await storeChanged(other, base.id, image, step));
      share!.push(disk![round]! / (ram![round]! + stored![round]!));
      idle!.push((await save(withDisk, store)).saveMs);
    }
    console.log(`${name}:`);
    console.log(`  a save when 1% changed (${changed} new pages)  ${spread(disk!, 0)} ms`);
    console.log(`  a save when nothing changed                ${spread(idle!, 0)} ms`);
    console.log(`  a save without the disk                    ${spread(ram!, 0)} ms`);
    console.log(`  reading the changed blocks                 ${spread(read!, 1)} ms`);
    console.log(`  ratio                                      ${spread(ratio!, 2)}`);
    console.log(`  reading and storing them, without a machine ${spread(stored!, 0)} ms`);
    console.log(`  ratio to that and the save without the disk ${spread(share!, 2)}`);
  }
  await withDisk.stop();
  await without.stop();
  await store.close();
  await other.close();
}

async function measureLoad(image: string): Promise<void> {
  const store = await openStore('load');
  const machine = await boot(image);
  await ask(machine, 'g');
  await save(machine, store);
  const quiet: number[] = [];
  for (let i = 0; i < Number(options.saves); i++) quiet.push((await save(machine, store)).pauseMs);
  machine.writeConsole(Buffer.from('l'));
  const pauses: number[] = [];
  let pages = 0;
  for (let i = 0; i < Number(options.saves); i++) {
    await new Promise((resolve) => setTimeout(resolve, 100)); // the guest writes meanwhile
    const saved = await save(machine, store);
    pauses.push(saved.pauseMs);
    pages += saved.newChunks;
  }
  await ask(machine, 'x');
  const line = (values: number[]): string => {
    const sorted = [...values].sort((a, b) => a - b);
    return `p50 ${median(values)}, p90 ${sorted[Math.floor(sorted.length * 0.9)]}, max ${sorted.at(-1)} ms`;
  };
  console.log(`pauses of a guest that does nothing        ${line(quiet)}`);
  console.log(`pauses of a guest that writes to its disk  ${line(pauses)}`);
  console.log(`new pages of each save                     ${Math.round(pages / pauses.length)}`);
  await machine.stop();
  await store.close();
}

async function measureFull(): Promise<void> {
  const image = makeImage('full.img', FULL_BYTES, FULL_BYTES);
  const [disk, put, ratio, ram]: number[][] = [[], [], [], []];
  for (let round = 0; round < rounds; round++) {
    const without = await boot(null);
    const ramStore = await openStore(`ram${round}`);
    ram!.push((await save(without, ramStore)).saveMs);
    await without.stop();
    await ramStore.close();
    const machine = await boot(image);
    await ask(machine, 'g');
    const store = await openStore(`full${round}`);
    disk!.push((await save(machine, store)).saveMs);
    await machine.stop();
    await store.close();
    const target = join(dir, `put${round}`);
    const started = performance.now();
    const out = execFileSync(join(projectRoot, 'bin/livesnap'), ['put', image, '--store', target, '--json'], {
      encoding: 'utf8',
    });
    const parsed = JSON.parse(out) as { saveMs?: number };
    put!.push(parsed.saveMs ?? performance.now() - started);
    ratio!.push(disk![round]! / put![round]!);
    for (const name of ['ram', 'full', 'put']) rmSync(join(dir, `${name}${round}`), { recursive: true });
  }
  console.log(`the first save of a disk of 1 GiB          ${spread(disk!, 0)} ms`);
  console.log(`the first save without a disk              ${spread(ram!, 0)} ms`);
  console.log(`put of the same file                       ${spread(put!, 0)} ms`);
  console.log(`ratio                                      ${spread(ratio!, 2)}`);
}

try {
  buildGuest(join(projectRoot, 'bench/guests/disk-load.S'), kernel);
  console.log(`the load of the host: ${hostLoad()}`);
  const wanted = options.only.split(',');
  if (wanted.some((each) => each !== 'full')) {
    const image = makeImage('image', DISK_BYTES, 64 * MIB);
    if (wanted.includes('changed')) await measureChanged(image);
    if (wanted.includes('load')) await measureLoad(image);
    rmSync(image);
  }
  if (wanted.includes('full')) await measureFull();
  console.log(`the load of the host: ${hostLoad()}`);
} finally {
  await stores.end();
  rmSync(dir, { recursive: true, force: true });
}
