import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { closeMemory, copyPages, createMemory, dataRanges } from '../../../../src/native/memory.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import type { MemorySlot } from '../../../../src/vmm/kvm/vm.js';
import { GuestRam } from '../../../../src/vmm/memory/guest-memory.js';
import { SharedBits } from '../../../../src/vmm/memory/shared-bits.js';

const LOW_BYTES = 16 * PAGE_BYTES;
const HIGH_GPA = 0x1_0000_0000;
const HIGH_BYTES = 8 * PAGE_BYTES;

describe('GuestRam', () => {
  let slots: MemorySlot[];
  let ram: GuestRam;
  beforeEach(() => {
    slots = [
      { gpa: 0, sizeBytes: LOW_BYTES },
      { gpa: HIGH_GPA, sizeBytes: HIGH_BYTES },
    ].map((slot) => ({
      ...slot,
      memory: createMemory(slot.sizeBytes),
      written: SharedBits.allocate(slot.sizeBytes / PAGE_BYTES),
    }));
    ram = new GuestRam(slots);
  });
  afterEach(() => {
    for (const { memory } of slots) closeMemory(memory);
  });

  function written(slot: number): number[] {
    const pages = new BitSet(slots[slot]!.sizeBytes / PAGE_BYTES);
    new SharedBits(slots[slot]!.written).moveTo(pages);
    return Array.from({ length: pages.size }, (_, page) => page).filter((page) => pages.has(page));
  }

  const read = (gpa: number, length: number): string => {
    const into = Buffer.alloc(length);
    ram.read(gpa, into);
    return into.toString('latin1');
  };

  it('reads back what it wrote, on both sides of the hole', () => {
    ram.write(0x1ffe, Buffer.from('across a page'));
    ram.write(HIGH_GPA + HIGH_BYTES - 4, Buffer.from('last'));
    assert.equal(read(0x1ffe, 13), 'across a page');
    assert.equal(read(HIGH_GPA + HIGH_BYTES - 4, 4), 'last');
    assert.equal(read(0x1ffc, 2), '\0\0');
  });

  it('marks exactly the pages that it wrote, in each slot', () => {
    ram.write(0x1ffe, Buffer.alloc(2));
    ram.write(0x3fff, Buffer.alloc(2));
    ram.write(HIGH_GPA, Buffer.alloc(2 * PAGE_BYTES));
    ram.write(0x5000, Buffer.alloc(0));
    read(0x6000, 10);
    assert.deepEqual(written(0), [1, 3, 4]);
    assert.deepEqual(written(1), [0, 1]);
    assert.deepEqual(written(0), []);
  });

  it('refuses an access with any byte outside RAM, and writes nothing', () => {
    const cases: [number, number][] = [
      [-1, 1],
      [LOW_BYTES - 1, 2],
      [LOW_BYTES, 1],
      [0xc000_0000, 4],
      [HIGH_GPA - 1, 2],
      [HIGH_GPA + HIGH_BYTES - 3, 4],
      [Number.MAX_SAFE_INTEGER, 1],
      [Number.NaN, 1],
    ];
    for (const [gpa, length] of cases) {
      const message = /guest memory has no/;
      assert.throws(() => ram.write(gpa, Buffer.alloc(length, 1)), { name: 'RangeError', message });
      assert.throws(() => ram.read(gpa, Buffer.alloc(length)), { name: 'RangeError', message });
    }
    assert.equal(read(LOW_BYTES - 1, 1), '\0');
    assert.deepEqual([...written(0), ...written(1)], []);
  });

  it('stores and loads 16 bits, little-endian, and marks the page', () => {
    ram.store16(0x2ffe, 0xabcd);
    assert.equal(ram.load16(0x2ffe), 0xabcd);
    assert.equal(read(0x2ffe, 2), '\xcd\xab');
    assert.deepEqual(written(0), [2]);
    ram.store16(HIGH_GPA + HIGH_BYTES - 2, 7);
    assert.deepEqual(written(1), [7]);
  });

  it('refuses 16 bits at an odd address or outside RAM', () => {
    for (const gpa of [1, LOW_BYTES, LOW_BYTES - 1, HIGH_GPA - 2, -2, Number.NaN]) {
      assert.throws(() => ram.load16(gpa), RangeError);
      assert.throws(() => ram.store16(gpa, 0), RangeError);
    }
    assert.deepEqual(written(0), []);
  });

  it('fills a range with random bytes, no byte beyond it, and marks the pages', () => {
    ram.fillRandom(0x0fc0, 128);
    assert.notEqual(read(0x0fc0, 128), '\0'.repeat(128));
    assert.equal(read(0x0fbf, 1) + read(0x1040, 1), '\0\0');
    assert.deepEqual(written(0), [0, 1]);
    assert.throws(() => ram.fillRandom(LOW_BYTES - 1, 2), RangeError);
  });

  it('gives whole pages back to the host, marks them, and copies them as zeros without allocating them', () => {
    ram.write(0, Buffer.alloc(LOW_BYTES, 'x'));
    ram.write(HIGH_GPA, Buffer.alloc(HIGH_BYTES, 'y'));
    assert.equal(written(0).length, 16);
    written(1);
    ram.discard(PAGE_BYTES - 1, 3 * PAGE_BYTES);
    ram.discard(0x5001, PAGE_BYTES);
    assert.deepEqual(written(0), [1, 2]);
    const { memory } = slots[0]!;
    const holes = [
      { offset: 0, length: PAGE_BYTES },
      { offset: 3 * PAGE_BYTES, length: LOW_BYTES - 3 * PAGE_BYTES },
    ];
    assert.deepEqual(dataRanges(memory), holes);
    const copy = Buffer.alloc(4 * PAGE_BYTES, 'z');
    copyPages(memory, Uint32Array.of(0, 1, 2, 3), copy);
    assert.equal(
      copy.toString('latin1'),
      'x'.repeat(PAGE_BYTES) + '\0'.repeat(2 * PAGE_BYTES) + 'x'.repeat(PAGE_BYTES),
    );
    assert.deepEqual(dataRanges(memory), holes);
    // A page that is written again is there again.
    ram.write(PAGE_BYTES, Buffer.from('again'));
    copyPages(memory, Uint32Array.of(1), copy);
    assert.equal(copy.toString('latin1', 0, 6), 'again\0');
    ram.discard(HIGH_GPA, HIGH_BYTES);
    assert.deepEqual(dataRanges(slots[1]!.memory), []);
    for (const [gpa, length] of [
      [LOW_BYTES - 1, 2],
      [HIGH_GPA, HIGH_BYTES + 1],
      [-1, 2],
    ] as const)
      assert.throws(() => ram.discard(gpa, length), RangeError);
  });

  it('tells native code where a range is, and takes its word for what it wrote', () => {
    assert.deepEqual(ram.locate(HIGH_GPA + 5, 10), { memory: slots[1]!.memory, offset: 5 });
    ram.markWritten(HIGH_GPA + PAGE_BYTES - 1, 2);
    assert.deepEqual(written(1), [0, 1]);
    assert.throws(() => ram.locate(LOW_BYTES - 1, 2), RangeError);
    assert.throws(() => ram.markWritten(LOW_BYTES, 1), RangeError);
  });

  it('contains ranges within one slot only', () => {
    assert.equal(ram.contains(0, LOW_BYTES), true);
    assert.equal(ram.contains(1, LOW_BYTES), false);
    assert.equal(ram.contains(HIGH_GPA - 1, 2), false);
    assert.equal(ram.contains(Number(2n ** 64n - 1n), 2), false);
  });
});
