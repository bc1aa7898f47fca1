/**
 * Saves of RAM into a store without a machine, as the store thread makes them. Pages are copied from guest memory by the
 * addon, as a machine's are.
 */
import {
  closeMemory,
  copyPages,
  createMemory,
  type MemoryHandle,
  writeMemory,
} from '../../src/native/memory.js';
import {
  BATCH_PAGES,
  PAGE_BYTES,
  type PageRun,
  type PageSource,
  type Region,
} from '../../src/page-stream.js';
import type { Store } from '../../src/store/store.js';

export const REGION = 'ram@0x0';

/** RAM that is saved, and the same bytes in a buffer, to compare with. */
export class StoredMemory {
  readonly bytes: Buffer;
  readonly #handle: MemoryHandle;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#handle = createMemory(bytes.length);
    writeMemory(this.#handle, 0, bytes);
  }

  close(): void {
    closeMemory(this.#handle);
  }

  everyPage(): Uint32Array {
    return Uint32Array.from({ length: this.bytes.length / PAGE_BYTES }, (_, i) => i);
  }

  /** Changes 1% of the pages, and returns their numbers. Equal `n` change the same pages. */
  changeOnePercent(n: number): Uint32Array {
    const pages = this.bytes.length / PAGE_BYTES;
    const changed = new Set<number>();
    for (let i = 0, state = n + 1; i < pages / 100; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      changed.add(Math.floor((state / 2 ** 32) * pages));
    }
    for (const page of changed) {
      const at = page * PAGE_BYTES + 8 * (n % 500);
      this.bytes.writeUInt32LE(n, at);
      writeMemory(this.#handle, at, this.bytes.subarray(at, at + 4));
    }
    return Uint32Array.from(changed).sort();
  }

  /** @param parent - the snapshot that the other pages are taken from; null: a full save */
  async save(store: Store, pages: Uint32Array, parent: string | null): Promise<string> {
    const bases = parent === null ? [] : [{ snapshot: parent, region: REGION }];
    const session = await store.beginSave({ regions: [{ region: REGION, bases }] });
    await session.store(this.#source(pages));
    const { id } = await session.commit({
      ...{ kind: 'machine' as const, vm: 'bench', tags: [], memoryBytes: this.bytes.length, diskBytes: 0 },
      ...{ machine: null, host: null, state: new Uint8Array(0) },
    });
    return id;
  }

  #source(pages: Uint32Array): PageSource {
    const regions: readonly Region[] = [{ name: REGION, sizeBytes: this.bytes.length }];
    let next = 0;
    return {
      regions,
      next: async (into: Uint8Array): Promise<PageRun | null> => {
        const run = pages.subarray(next, next + BATCH_PAGES);
        if (run.length === 0) return null;
        next += run.length;
        copyPages(this.#handle, run, into);
        return { region: 0, pages: run };
      },
    };
  }
}

/** Saves all pages of RAM with these bytes. Returns the ID. */
export async function saveInFull(store: Store, bytes: Buffer): Promise<string> {
  const memory = new StoredMemory(bytes);
  try {
    return await memory.save(store, memory.everyPage(), null);
  } finally {
    memory.close();
  }
}
