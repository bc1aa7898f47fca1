import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { BitSet } from '../../../../src/bit-set.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

const PAGES = 200;

function members(set: BitSet): number[] {
  return Array.from({ length: set.size }, (_, i) => i).filter((i) => set.has(i));
}

function taken(shared: SharedArrayBuffer): number[] {
  const into = new BitSet(PAGES);
  new SharedBits(shared).moveTo(into);
  return members(into);
}

describe('SharedBits', () => {
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
      const shared = SharedBits.allocate(PAGES);
      new SharedBits(shared).addRange(first, count);
      assert.deepEqual(
        taken(shared),
        Array.from({ length: count }, (_, i) => first + i),
      );
    }
  });

  it('is empty after its pages are moved into a set, which keeps its own', () => {
    const shared = SharedBits.allocate(PAGES);
    const pages = new SharedBits(shared);
    const into = new BitSet(PAGES);
    into.add(7);
    pages.addRange(8, 1);
    assert(!pages.isEmpty);
    pages.moveTo(into);
    assert.deepEqual(members(into), [7, 8]);
    assert(pages.isEmpty);
    assert.deepEqual(taken(shared), []);
  });

  it('loses no page when one thread adds while another takes', async () => {
    const shared = SharedBits.allocate(PAGES);
    const worker = new Worker(new URL('./add-pages-worker.js', import.meta.url), {
      workerData: { shared, pages: PAGES },
    });
    const into = new BitSet(PAGES);
    const pages = new SharedBits(shared);
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
