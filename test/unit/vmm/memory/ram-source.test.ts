import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { closeMemory, createMemory, writePages } from '../../../../src/native/memory.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../../../src/page-stream.js';
import { MAX_ASIDE_PAGES, RamSource } from '../../../../src/vmm/memory/ram-source.js';
import { WrittenPages } from '../../../../src/vmm/memory/written-pages.js';

/** More than may be copied aside. */
const PAGES = MAX_ASIDE_PAGES + 5000;

describe('RamSource', () => {
  let memory: number;
  let isParked: boolean;
  let events: string[];
  /** The guest writes so many pages in each round. */
  let writtenPages: number;

  const slots = () => {
    const sizeBytes = PAGES * PAGE_BYTES;
    return [{ gpa: 0, sizeBytes, memory, written: WrittenPages.allocate(sizeBytes) }];
  };
  const all = (pages: number): BitSet[] => {
    const bitmap = new BitSet(PAGES);
    bitmap.addRange(0, pages);
    return [bitmap];
  };
  /** What the guest writes: the first bytes of its pages say how often it has. */
  let generation: number;
  function guestWrites(): void {
    generation++;
    const content = Buffer.alloc(BATCH_PAGES * PAGE_BYTES);
    for (let i = 0; i < BATCH_PAGES; i++) content.writeUInt32LE(generation, i * PAGE_BYTES);
    for (let first = 0; first < writtenPages; first += BATCH_PAGES) {
      const pages = Uint32Array.from(
        { length: Math.min(BATCH_PAGES, writtenPages - first) },
        (_, i) => first + i,
      );
      writePages(memory, pages, content.subarray(0, pages.length * PAGE_BYTES));
    }
  }
  const dirty = {
    begin: () => all(PAGES),
    harvest() {
      if (isParked) return all(0);
      guestWrites();
      return all(writtenPages);
    },
  };

  beforeEach(() => {
    memory = createMemory(PAGES * PAGE_BYTES);
    isParked = false;
    generation = 0;
    events = [];
  });
  afterEach(() => closeMemory(memory));

  /** Takes all pages; the last content of each, and how many were given while the vCPUs were parked. */
  async function takeAll(): Promise<{ seen: Uint32Array; source: RamSource; parkedPages: number }> {
    const source = new RamSource(slots(), dirty, true, {
      pause: async () => {
        isParked = true;
        events.push('pause');
      },
      captureAndContinue: async () => {
        isParked = false;
        events.push('continue');
        // The guest goes on at once: what it writes now is not of the moment.
        guestWrites();
      },
    });
    const seen = new Uint32Array(PAGES);
    const into = Buffer.alloc(BATCH_PAGES * PAGE_BYTES);
    let parkedPages = 0;
    for (let run = await source.next(into); run !== null; run = await source.next(into)) {
      if (isParked) parkedPages += run.pages.length;
      run.pages.forEach((page, i) => {
        seen[page] = into.readUInt32LE(i * PAGE_BYTES);
      });
    }
    return { seen, source, parkedPages };
  }

  it('copies aside what is left at the pause, and gives it when the guest runs again', async () => {
    writtenPages = 2000;
    const { seen, source, parkedPages } = await takeAll();
    assert.deepEqual(events, ['pause', 'continue']);
    assert.equal(parkedPages, 0);
    assert.equal(source.storedWhilePausedBytes, 0);
    const moment = generation - 1;
    assert(seen.subarray(0, writtenPages).every((content) => content === moment));
  });

  it('copies no more than its limit aside; the rest is given while the guest stands still', async () => {
    writtenPages = PAGES;
    const { seen, source, parkedPages } = await takeAll();
    assert.deepEqual(events, ['pause', 'continue']);
    assert(PAGES - parkedPages <= MAX_ASIDE_PAGES, `${PAGES - parkedPages} pages were copied aside`);
    assert(parkedPages < PAGES, 'it stands still no longer than it must');
    assert.equal(source.storedWhilePausedBytes, parkedPages * PAGE_BYTES);
    const moment = generation - 1;
    assert(
      seen.every((content) => content === moment),
      'every page is of the moment',
    );
  });
});
