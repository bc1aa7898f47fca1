/**
 * Saves of an image into a store, in process and without a machine: full, the same again, and incremental. The full save
 * is compared with the bare pipeline, which shares the image and the disk.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { SHA256 } from '../../src/store/pack/digest.js';
import { Store } from '../../src/store/store.js';
import type { Context, Entry, Figure } from '../harness/figure.js';
import { imagePaths, readImage } from '../harness/images.js';
import { bareLimit } from '../harness/limit.js';
import { StoredMemory } from '../harness/stored-memory.js';

async function timed<T>(into: number[], work: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  const result = await work();
  into.push(performance.now() - begun);
  return result;
}

async function measure(context: Context): Promise<readonly Figure[]> {
  const [path] = imagePaths(context, 1);
  const memory = new StoredMemory(readImage(path!));
  const pages = memory.everyPage();
  const none = new Uint32Array(0);
  const [first, again, incremental, idle]: [number[], number[], number[], number[]] = [[], [], [], []];
  const [limit, older]: [number[], number[]] = [[], []];
  // The first rounds start the threads and are not counted: a machine keeps them as long as it runs.
  for (let round = -2; round < context.rounds; round++) {
    const store = Store.open(join(context.dir, `store-${round}`), { write: true, create: true });
    const counted = <T>(into: number[], work: () => Promise<T>): Promise<T> =>
      timed(round < 0 ? [] : into, work);
    await store.put(new URL(import.meta.url).pathname, { tags: [], name: null });
    let last = await counted(first, () => memory.save(store, pages, null));
    last = await counted(again, () => memory.save(store, pages, null));
    const dirty = memory.changeOnePercent(round + 2);
    last = await counted(incremental, () => memory.save(store, dirty, last));
    await counted(idle, () => memory.save(store, none, last));
    store.close();
    const other = Store.open(join(context.dir, `older-${round}`), {
      write: true,
      create: true,
      digest: SHA256,
    });
    await other.put(new URL(import.meta.url).pathname, { tags: [], name: null });
    await counted(older, () => memory.save(other, pages, null));
    other.close();
    // The next round then gets pages of the page cache that the host of this virtual machine has backed, as the pipeline
    // does, which writes the same file each time.
    for (const dir of [store.dir, other.dir]) rmSync(dir, { recursive: true });
    // Beside each save, because a shared host changes its speed within a minute.
    if (round >= 0) limit.push(...(bareLimit([path!], context.dir, 1)?.seconds.map((s) => s * 1000) ?? []));
  }
  memory.close();
  const figure = (name: string, values: number[], rest: Partial<Figure>): Figure => ({
    ...{ name: `save: ${name}`, unit: 'ms', values, reference: null, target: null, margin: 0.5 },
    ...rest,
  });
  return [
    figure('full, into an empty store', first, {
      ...(limit.length > 0 && { reference: { name: 'bare pipeline', values: limit }, target: 1.2 }),
    }),
    figure('full, with SHA-256', older, { reference: { name: 'with BLAKE3', values: first } }),
    figure('the same again', again, { reference: { name: 'full', values: first }, target: 0.35 }),
    figure('1% of the pages', incremental, { target: 20, margin: 1 }),
    figure('no page', idle, { target: 12, margin: 1 }),
  ];
}

export const entry: Entry = { summary: 'saves in process, beside the bare pipeline', measure };
