/**
 * Reads by the native reader of a region, as a disk reads them: on one thread and on I/O threads. For comparison: memcpy.
 *
 *     node dist/bench/region-reader.js [MIB…] [--json]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  closeIoEngine,
  createIoEngine,
  submitStoreRead,
  takeCompletions,
  waitForCompletion,
} from '../src/native/block-io.js';
import { closeMemory, createMemory } from '../src/native/memory.js';
import {
  closeRegionReader,
  openRegionReader,
  type RegionReader,
  readRegion,
} from '../src/native/region-reader.js';
import { readSnapshotFile } from '../src/store/snapshot/snapshot-file.js';
import { Store } from '../src/store/store.js';
import { mixedMemory } from './figures.js';
import { saveInFull } from './harness/stored-memory.js';

const MIB = 1 << 20;

async function timed<T>(work: () => T | Promise<T>): Promise<[T, number, number]> {
  const start = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  return [result, Number(process.hrtime.bigint() - start) / 1e6, (user + system) / 1e3];
}

type Row = <T>(name: string, work: () => T) => Promise<T>;

/** The same bytes by the native reader of a region, as a disk reads them: on this thread, and on I/O threads. */
async function readNatively(dir: string, id: string, sizeBytes: number, row: Row): Promise<void> {
  const blocks = readSnapshotFile(dir, id).blocks.bytes;
  const open = (): RegionReader => openRegionReader({ packsDir: join(dir, 'packs'), sizeBytes, blocks });
  const succeeded = (errno: number): void => {
    if (errno !== 0) throw new Error(`a read failed with errno ${errno}`);
  };

  const reader = open();
  const target = Buffer.alloc(MIB);
  await row('region reader', () => {
    for (let at = 0; at < sizeBytes; at += MIB) succeeded(readRegion(reader, at, target));
  });
  closeRegionReader(reader);

  const shared = open();
  const engine = createIoEngine();
  const memory = createMemory(sizeBytes);
  const completions = new Int32Array(2 * 512);
  await row('region reader, I/O engine', () => {
    let running = 0;
    const take = (): void => {
      waitForCompletion(engine, -1);
      const count = takeCompletions(engine, completions);
      for (let i = 0; i < count; i++) succeeded(completions[2 * i + 1]!);
      running -= count;
    };
    for (let at = 0; at < sizeBytes; at += MIB / 4, running++)
      while (!submitStoreRead(engine, 0, shared, at, new Float64Array([memory, at, MIB / 4]))) take();
    while (running > 0) take();
  });
  closeIoEngine(engine);
  closeRegionReader(shared);
  closeMemory(memory);
}

async function run(sizeMib: number): Promise<Record<string, { ms: number; cpuMs: number }>> {
  const dir = mkdtempSync(join(tmpdir(), 'livesnap-bench-'));
  const rows: Record<string, { ms: number; cpuMs: number }> = {};
  const row = async <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
    const [result, ms, cpuMs] = await timed(work);
    rows[name] = { ms: Math.round(ms * 10) / 10, cpuMs: Math.round(cpuMs * 10) / 10 };
    return result;
  };
  try {
    const memory = mixedMemory(sizeMib * MIB);
    const target = Buffer.alloc(memory.length);
    const store = Store.open(join(dir, 'store'), { write: true, create: true });
    const id = await saveInFull(store, memory);
    store.close();
    await readNatively(join(dir, 'store'), id, memory.length, row);
    await row('memcpy', () => memory.copy(target));
    return rows;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const sizes = process.argv.slice(2).map(Number).filter(Boolean);
for (const sizeMib of sizes.length > 0 ? sizes : [64, 256]) {
  const rows = await run(sizeMib);
  if (process.argv.includes('--json')) {
    console.log(JSON.stringify({ sizeMib, rows }));
    continue;
  }
  console.log(`${sizeMib} MiB of mixed pages (a quarter zero, a quarter noise, half text)`);
  console.log(`${''.padEnd(24)}${'ms'.padStart(9)}${'CPU ms'.padStart(9)}`);
  for (const [name, { ms, cpuMs }] of Object.entries(rows))
    console.log(`${name.padEnd(24)}${ms.toFixed(1).padStart(9)}${cpuMs.toFixed(1).padStart(9)}`);
}
