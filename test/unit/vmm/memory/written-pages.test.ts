import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { BitSet } from '../../../../src/bit-set.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import { WrittenPages } from '../../../../src/vmm/memory/written-pages.js';

const PAGES = 200;

function members(set: BitSet): number[] {
  return Array.from({ length: set.size }, (_, i) => i).filter((i) => set.has(i));
}

function taken(shared: SharedArrayBuffer): number[] {
  const into = new BitSet(PAGES);
  new WrittenPages(shared).moveTo(into);
  return members(into);
}

describe('WrittenPages', () => {
  it('holds runs that begin and end anywhere in a word', () => {
    for (const [first, count] of [
      [0, 1],
      [31, 1],
      [31, 2],
      [0, 32],
      [5, 90],
      [64, 64],
      [199, 1],
    ] as const) {
      const shared = WrittenPages.allocate(PAGES * PAGE_BYTES);
      new WrittenPages(shared).add(first, count);
      assert.deepEqual(
        taken(shared),
        Array.from({ length: count }, (_, i) => first + i),
      );
    }
  });

  it('is empty after its pages are moved into a set, which keeps its own', () => {
    const shared = WrittenPages.allocate(PAGES * PAGE_BYTES);
    const pages = new WrittenPages(shared);
    const into = new BitSet(PAGES);
    into.add(7);
    pages.add(8, 1);
    pages.moveTo(into);
    assert.deepEqual(members(into), [7, 8]);
    assert.deepEqual(taken(shared), []);
  });

  it('loses no page when one thread adds while another takes', async () => {
    const shared = WrittenPages.allocate(PAGES * PAGE_BYTES);
    const worker = new Worker(new URL('./add-pages-worker.js', import.meta.url), {
      workerData: { shared, pages: PAGES },
    });
    const into = new BitSet(PAGES);
    const pages = new WrittenPages(shared);
    let ended = false;
    const end = new Promise<void>((resolve, reject) => {
      worker.once('error', reject);
      worker.once('exit', () => {
        ended = true;
        resolve();
      });
    });
    while (!ended) {
      pages.moveTo(into);
      await new Promise(setImmediate);
    }
    await end;
    pages.moveTo(into);
    assert.equal(into.count(), PAGES);
  });
});
