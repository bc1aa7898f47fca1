/** Saves of RAM into a store without a machine, as the store thread makes them. */
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource } from '../../src/page-stream.js';
import type { Store } from '../../src/store/store.js';

export const REGION = 'ram@0x0';

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

export const everyPage = (memory: Buffer): Uint32Array =>
  Uint32Array.from({ length: memory.length / PAGE_BYTES }, (_, i) => i);

/** Changes 1% of the pages, and returns their numbers. Equal `n` change the same pages. */
export function changeOnePercent(memory: Buffer, n: number): Uint32Array {
  const pages = memory.length / PAGE_BYTES;
  const changed = new Set<number>();
  for (let i = 0, state = n + 1; i < pages / 100; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    changed.add(Math.floor((state / 2 ** 32) * pages));
  }
  for (const page of changed) memory.writeUInt32LE(n, page * PAGE_BYTES + 8 * (n % 500));
  return Uint32Array.from(changed).sort();
}

/** @param parent - the snapshot that the other pages are taken from; null: a full save */
export async function saveMemory(
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
