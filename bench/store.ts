/**
 * The store without a machine: full and incremental saves, restores, reads by the native reader of a region, opening and
 * listing. For comparison: memcpy, SHA-256, and write + fsync of the same bytes.
 *
 *     node dist/bench/store.js [MIB…] [--json]
 */
import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
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
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSink, type PageSource } from '../src/page-stream.js';
import { readSnapshotFile } from '../src/store/snapshot/snapshot-file.js';
import { Store } from '../src/store/store.js';
import { mixedMemory } from './figures.js';

const MIB = 1 << 20;

class MemorySource implements PageSource {
  readonly regions;
  #next = 0;

  constructor(
    readonly memory: Buffer,
    readonly pages: Uint32Array,
  ) {
    this.regions = [{ name: 'ram@0x0', sizeBytes: memory.length }];
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    const pages = this.pages.subarray(this.#next, this.#next + BATCH_PAGES);
    if (pages.length === 0) return null;
    this.#next += pages.length;
    for (let i = 0; i < pages.length; i++)
      into.set(this.memory.subarray(pages[i]! * PAGE_BYTES, (pages[i]! + 1) * PAGE_BYTES), i * PAGE_BYTES);
    return { region: 0, pages };
  }
}

class MemorySink implements PageSink {
  readonly regions;

  constructor(readonly memory: Buffer) {
    this.regions = [{ name: 'ram@0x0', sizeBytes: memory.length }];
  }

  write({ pages }: PageRun, bytes: Uint8Array): void {
    for (let i = 0; i < pages.length; i++)
      this.memory.set(bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), pages[i]! * PAGE_BYTES);
  }
}

const everyPage = (memory: Buffer, step = 1): Uint32Array =>
  Uint32Array.from({ length: Math.ceil(memory.length / PAGE_BYTES / step) }, (_, i) => i * step);

async function timed<T>(work: () => T | Promise<T>): Promise<[T, number, number]> {
  const start = process.hrtime.bigint();
  const cpu = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  return [result, Number(process.hrtime.bigint() - start) / 1e6, (user + system) / 1e3];
}

async function saveOnce(
  store: Store,
  memory: Buffer,
  pages: Uint32Array,
  parent: string | null,
): Promise<string> {
  const session = await store.beginSave({
    regions: [{ region: 'ram@0x0', bases: parent === null ? [] : [{ snapshot: parent, region: 'ram@0x0' }] }],
  });
  await session.store(new MemorySource(memory, pages));
  const { id } = await session.commit({
    kind: 'machine',
    vm: 'bench',
    tag: null,
    memoryBytes: memory.length,
    diskBytes: 0,
    machine: null,
    host: null,
    state: new Uint8Array(0),
  });
  return id;
}

async function fill(store: Store, id: string, memory: Buffer): Promise<void> {
  const snapshot = await store.openSnapshot(id);
  await snapshot.fill(new MemorySink(memory));
  snapshot.close();
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

function writeAndSync(dir: string, memory: Buffer): void {
  const fd = openSync(join(dir, 'plain'), 'w');
  for (let at = 0; at < memory.length; at += MIB)
    writeSync(fd, memory, at, Math.min(MIB, memory.length - at));
  fsyncSync(fd);
  closeSync(fd);
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
    let store = Store.open(join(dir, 'store'), { write: true, create: true });
    await store.put(new URL(import.meta.url).pathname, { tag: null, name: null }); // starts a page Worker
    const first = await row('save', () => saveOnce(store, memory, everyPage(memory), null));
    await row('save again, full', () => saveOnce(store, memory, everyPage(memory), null));
    const dirty = everyPage(memory, 50);
    for (const page of dirty) memory.writeUInt32LE(page + 1, page * PAGE_BYTES);
    await row('save again, 2% dirty', () => saveOnce(store, memory, dirty, first));
    await row('restore', () => fill(store, first, target));
    target.fill(0);
    await row('restore, Workers warm', () => fill(store, first, target));
    store.close();
    await readNatively(join(dir, 'store'), first, memory.length, row);
    await row('open and list', () => {
      store = Store.open(join(dir, 'store'), { write: false });
      store.list();
      store.close();
    });
    await row('memcpy', () => memory.copy(target));
    await row('SHA-256', () => createHash('sha256').update(memory).digest());
    await row('write and fsync', () => writeAndSync(dir, memory));
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
