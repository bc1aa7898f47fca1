import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { closeMemory, createMemory, writePages } from '../../../../src/native/memory.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../../../src/page-stream.js';
import { MAX_ASIDE_PAGES, MomentPages } from '../../../../src/vmm/memory/moment-pages.js';
import { type CaptureMoment, RamSource } from '../../../../src/vmm/memory/ram-source.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

/** More than may be copied aside. */
const PAGES = MAX_ASIDE_PAGES + 5000;

describe('RamSource', () => {
  let memory: number;
  let isParked: boolean;
  let events: string[];
  /** The copies aside of the save. */
  let copies: Uint8Array[];
  /** How many pages the guest writes in each round. */
  let writtenPages: number;

  const slots = () => {
    const sizeBytes = PAGES * PAGE_BYTES;
    return [{ gpa: 0, sizeBytes, memory, written: SharedBits.allocate(sizeBytes / PAGE_BYTES) }];
  };
  const all = (pages: number): BitSet[] => {
    const bitmap = new BitSet(PAGES);
    bitmap.addRange(0, pages);
    return [bitmap];
  };
  /** How often the guest has written its pages. The first bytes of each page hold it. */
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
  function harvest(): BitSet[] {
    if (isParked) return all(0);
    guestWrites();
    return all(writtenPages);
  }

  beforeEach(() => {
    memory = createMemory(PAGES * PAGE_BYTES);
    isParked = false;
    generation = 0;
    events = [];
    copies = [];
  });
  afterEach(() => closeMemory(memory));

  /** Takes all pages. `seen` is the last content of each, `parkedPages` how many came while the vCPUs were parked. */
  async function takeAll(): Promise<{ seen: Uint32Array; source: RamSource; parkedPages: number }> {
    const capture: CaptureMoment = async (pending, room) => {
      if (!isParked) events.push('pause');
      const written = isParked ? all(0) : harvest();
      isParked = true;
      const copy = new BitSet(PAGES);
      copy.addAll(pending[0]!);
      const pages = new MomentPages(slots(), [copy], room);
      pages.copy(written);
      for (const { bytes } of pages.aside ?? []) copies.push(bytes);
      if (pages.aside !== null) {
        isParked = false;
        events.push('continue');
        // The guest continues at once. What it writes now is not in the snapshot.
        guestWrites();
      }
      return { written, aside: pages.aside };
    };
    const regions = [{ name: 'ram@0x0', sizeBytes: PAGES * PAGE_BYTES }];
    const source = new RamSource({ regions, slots: slots(), pending: all(PAGES), harvest, capture });
    const seen = new Uint32Array(PAGES);
    const into = Buffer.alloc(BATCH_PAGES * PAGE_BYTES);
    let parkedPages = 0;
    for (let run = await source.next(into); run !== null; run = await source.next(into)) {
      if (run.pages.length === 0) events.push('store idle');
      if (isParked) parkedPages += run.pages.length;
      run.pages.forEach((page, i) => {
        seen[page] = into.readUInt32LE(i * PAGE_BYTES);
      });
    }
    return { seen, source, parkedPages };
  }

  it('copies the last pages aside during the pause and gives them after it', async () => {
    writtenPages = 2000;
    const { seen, source, parkedPages } = await takeAll();
    assert.deepEqual(events, ['store idle', 'pause', 'continue']);
    assert.equal(parkedPages, 0);
    assert.equal(source.storedWhilePausedBytes, 0);
    const moment = generation - 1;
    assert(seen.subarray(0, writtenPages).every((content) => content === moment));
  });

  it('gives the memory of the copies back when they are stored', async () => {
    writtenPages = 2000;
    await takeAll();
    assert.equal(copies.length, Math.ceil(writtenPages / BATCH_PAGES));
    // The first and the last page of a room may be shared with other memory.
    for (const bytes of copies) assert(bytes.subarray(PAGE_BYTES, -PAGE_BYTES).every((byte) => byte === 0));
  });

  it('copies at most its limit aside and gives the rest while the guest is paused', async () => {
    writtenPages = PAGES;
    const { seen, source, parkedPages } = await takeAll();
    assert.deepEqual(events, ['store idle', 'pause', 'continue']);
    assert(PAGES - parkedPages <= MAX_ASIDE_PAGES, `${PAGES - parkedPages} pages were copied aside`);
    assert(parkedPages < PAGES, 'the copied pages are given after the pause');
    assert.equal(source.storedWhilePausedBytes, parkedPages * PAGE_BYTES);
    const moment = generation - 1;
    assert(
      seen.every((content) => content === moment),
      'every page is of the same moment',
    );
  });
});
