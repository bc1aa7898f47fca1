/**
 * Restores of RAM without a machine: fresh, and after many incremental saves. For comparison: what the same two threads need
 * to write the bytes into memory files with pwrite (the limit of the host's memory), on one thread.
 *
 *     node dist/bench/fills.js [--image FILE] [--saves N] [--json]
 *
 * `--image`: a raw dump of memory instead of mixed pages. `--saves`: so many incremental saves of 1% of the pages, at
 * random (default 200). Saves are made first and take most of the time.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { closeMemory, createMemory, readMemory, writePages } from '../src/native/memory.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource } from '../src/page-stream.js';
import { Store } from '../src/store/store.js';
import { median, mixedMemory, spread } from './figures.js';

const MIB = 1 << 20;
const ROUNDS = 7;
const REGION = 'ram@0x0';

const { values } = parseArgs({
  options: {
    image: { type: 'string' },
    saves: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
});

class MemorySource implements PageSource {
  readonly regions;
  #next = 0;

  constructor(
    readonly memory: Buffer,
    readonly pages: Uint32Array,
  ) {
    this.regions = [{ name: REGION, sizeBytes: memory.length }];
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

async function save(
  store: Store,
  memory: Buffer,
  pages: Uint32Array,
  parent: string | null,
): Promise<string> {
  const bases = parent === null ? [] : [{ snapshot: parent, region: REGION }];
  const session = await store.beginSave({ regions: [{ region: REGION, bases }] });
  await session.store(new MemorySource(memory, pages));
  const { id } = await session.commit({
    ...{ kind: 'machine' as const, vm: 'bench', tag: null, memoryBytes: memory.length, diskBytes: 0 },
    ...{ machine: null, host: null, state: new Uint8Array(0) },
  });
  return id;
}

async function restored(store: Store, id: string, memory: Buffer): Promise<number> {
  const handle = createMemory(memory.length);
  try {
    const snapshot = await store.openSnapshot(id);
    const start = performance.now();
    await snapshot.fill({
      regions: [{ name: REGION, sizeBytes: memory.length }],
      memories: [handle],
      write: () => {},
    });
    const ms = performance.now() - start;
    snapshot.close();
    const found = Buffer.alloc(memory.length);
    readMemory(handle, 0, found);
    if (!found.equals(memory)) throw new Error('the memory that was restored differs');
    return ms;
  } finally {
    closeMemory(handle);
  }
}

function written(memory: Buffer): number {
  const handle = createMemory(memory.length);
  const pages = Uint32Array.from({ length: memory.length / PAGE_BYTES }, (_, i) => i);
  const start = performance.now();
  writePages(handle, pages, memory);
  const ms = performance.now() - start;
  closeMemory(handle);
  return ms;
}

async function rounds(work: () => Promise<number> | number): Promise<number[]> {
  const all: number[] = [];
  for (let i = 0; i < ROUNDS; i++) all.push(await work());
  return all;
}

const dir = mkdtempSync(join(tmpdir(), 'livesnap-bench-'));
try {
  const memory = values.image === undefined ? mixedMemory(256 * MIB) : readFileSync(values.image);
  const pages = memory.length / PAGE_BYTES;
  const zero = Buffer.alloc(PAGE_BYTES);
  let nonZero = 0;
  for (let i = 0; i < pages; i++)
    if (zero.compare(memory, i * PAGE_BYTES, (i + 1) * PAGE_BYTES) !== 0) nonZero++;
  const store = Store.open(join(dir, 'store'), { write: true, create: true });
  const everyPage = Uint32Array.from({ length: pages }, (_, i) => i);
  let last = await save(store, memory, everyPage, null);
  const fresh = await rounds(() => restored(store, last, memory));
  const plain = await rounds(() => written(memory));
  const saves = Number(values.saves);
  for (let n = 1; n <= saves; n++) {
    const dirty = Uint32Array.from({ length: Math.floor(pages / 100) }, () =>
      Math.floor(Math.random() * pages),
    );
    const changed = Uint32Array.from(new Set(dirty)).sort();
    for (const page of changed) memory.writeUInt32LE(n, page * PAGE_BYTES + 8 * (n % 500));
    last = await save(store, memory, changed, last);
  }
  const after = await rounds(() => restored(store, last, memory));
  store.close();
  const bytes = nonZero * PAGE_BYTES;
  const rate = (ms: readonly number[]): number => bytes / 1e6 / median(ms);
  if (values.json) console.log(JSON.stringify({ bytes, saves, fresh, plain, after }));
  else {
    console.log(`${Math.round(bytes / MIB)} MiB of ${pages / 256} MiB are not zero`);
    console.log(`restore, fresh:              ${spread(fresh, 0)} ms, ${rate(fresh).toFixed(2)} GB/s`);
    console.log(`restore after ${saves} saves of 1%: ${spread(after, 0)} ms, ${rate(after).toFixed(2)} GB/s`);
    console.log(`× of fresh: ${(median(after) / median(fresh)).toFixed(2)}`);
    console.log(`pwrite of all pages, one thread: ${spread(plain, 0)} ms`);
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
