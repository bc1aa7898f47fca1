/**
 * Eager fills of RAM without a machine: from a fresh store, and after many incremental saves of 1% of the pages. Compared
 * with writing the same bytes into a memory by one thread.
 */
import { join } from 'node:path';
import { closeMemory, createMemory, readMemory, writePages } from '../../src/native/memory.js';
import { Store } from '../../src/store/store.js';
import { type Context, type Entry, type Figure, milliseconds } from '../harness/figure.js';
import { imagePaths, nonZeroBytes, readImage } from '../harness/images.js';
import { REGION, StoredMemory } from '../harness/stored-memory.js';

/** The target speaks of 1,000; these take a minute to make, and their cost is already seen. */
const SAVES = 100;

/** The milliseconds of one fill. Its result is compared with `memory`. */
async function fillOnce(store: Store, id: string, memory: Buffer): Promise<number> {
  const handle = createMemory(memory.length);
  try {
    const snapshot = await store.openSnapshot(id);
    const begun = performance.now();
    await snapshot.fill({
      regions: [{ name: REGION, sizeBytes: memory.length }],
      memories: [handle],
      write: () => {},
    });
    const ms = performance.now() - begun;
    snapshot.close();
    const found = Buffer.alloc(memory.length);
    readMemory(handle, 0, found);
    if (!found.equals(memory)) throw new Error('the memory that was restored differs');
    return ms;
  } finally {
    closeMemory(handle);
  }
}

async function measure(context: Context): Promise<readonly Figure[]> {
  const [path] = imagePaths(context, 1);
  const memory = new StoredMemory(readImage(path!));
  const pages = memory.everyPage();
  const bytes = nonZeroBytes(memory.bytes);
  const rounds = async (): Promise<number[]> => {
    const all: number[] = [];
    for (let i = 0; i < context.rounds; i++) all.push(await fillOnce(store, last, memory.bytes));
    return all;
  };
  const store = Store.open(join(context.dir, 'store'), { write: true, create: true });
  let last = await memory.save(store, pages, null);
  const fresh = await rounds();
  const written = await milliseconds(context.rounds, () => {
    const handle = createMemory(memory.bytes.length);
    writePages(handle, pages, memory.bytes);
    closeMemory(handle);
  });
  for (let n = 1; n <= SAVES; n++) {
    const changed = memory.changeOnePercent(n);
    last = await memory.save(store, changed, last);
  }
  const after = await rounds();
  store.close();
  memory.close();
  const rate = (values: readonly number[]): number[] => values.map((ms) => bytes / 1e6 / ms);
  return [
    {
      ...{ name: 'fill: eager, non-zero bytes', unit: 'GB/s', values: rate(fresh), isRate: true },
      ...{ reference: null, target: 2, margin: 0.5 },
    },
    {
      ...{ name: 'fill: eager, fresh', unit: 'ms', values: fresh, target: null, margin: 0.5 },
      reference: { name: 'pwrite of all pages, one thread', values: written },
    },
    {
      ...{
        name: `fill: eager, after ${SAVES} saves of 1%`,
        unit: 'ms',
        values: after,
        target: 1.3,
        margin: 0.5,
      },
      reference: { name: 'fresh', values: fresh },
    },
  ];
}

export const entry: Entry = { summary: 'eager fills of RAM, fresh and after many saves', measure };
