/**
 * A child process that saves a disk of GIB GiB to the store DIR, with one page in each of its manifest blocks, and prints
 * its peak memory in KiB. With `in-order` the source announces that it reads the disk in order.
 */
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { peakRssKiB } from './peak-memory.js';
import { diskMetadata } from './scratch.js';

const [dir, gib, how] = process.argv.slice(2) as [string, string, string];
const BLOCK_PAGES = 512;
const blocks = (Number(gib) * 2 ** 30) / PAGE_BYTES / BLOCK_PAGES;

class SparseDisk implements PageSource {
  readonly regions = [{ name: 'disk0', sizeBytes: Number(gib) * 2 ** 30 }];
  readonly sequential = how === 'in-order' ? [0] : [];
  #block = 0;

  async next(into: Uint8Array): Promise<PageRun | null> {
    const count = Math.min(BATCH_PAGES, blocks - this.#block);
    if (count === 0) return null;
    const pages = Uint32Array.from(
      { length: count },
      (_, i) => (this.#block + i) * BLOCK_PAGES + ((this.#block + i) % 500),
    );
    into.fill(0);
    const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
    for (let i = 0; i < count; i++) view.setUint32(i * PAGE_BYTES, this.#block + i + 1, true);
    this.#block += count;
    return { region: 0, pages };
  }
}

const store = Store.open(dir, { write: true, create: true });
const session = await store.beginSave({ regions: [] });
await session.store(new SparseDisk());
await session.commit(diskMetadata());
console.log(peakRssKiB());
store.close();
