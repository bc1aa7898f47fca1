import assert from 'node:assert/strict';
import { BitSet } from '../../../src/bit-set.js';
import { closeMemory, createMemory } from '../../../src/native/memory.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../../src/page-stream.js';
import { MachineSource } from '../../../src/vmm/machine-source.js';
import { SharedBits } from '../../../src/vmm/memory/shared-bits.js';

const RAM_PAGES = 8000;
const DISK_PAGES = 1000;

describe('MachineSource', () => {
  const some = (size: number, count: number): BitSet => {
    const set = new BitSet(size);
    set.addRange(0, count);
    return set;
  };

  it('tells how much it gives: what is left at first, and what is written meanwhile', async () => {
    const memory = createMemory(RAM_PAGES * PAGE_BYTES);
    const sizeBytes = RAM_PAGES * PAGE_BYTES;
    const slots = [{ gpa: 0, sizeBytes, memory, written: SharedBits.allocate(RAM_PAGES) }];
    // In the first round the guest writes 2000 pages and 50 blocks, in the second one 10 pages, at the moment 3.
    const rounds = [
      [some(RAM_PAGES, 2000), some(DISK_PAGES, 50)],
      [some(RAM_PAGES, 10), some(DISK_PAGES, 0)],
    ];
    const source = new MachineSource({
      regions: [
        { name: 'ram@0x0', sizeBytes },
        { name: 'disk0', sizeBytes: DISK_PAGES * PAGE_BYTES },
      ],
      slots,
      disks: [{ sizeBytes: DISK_PAGES * PAGE_BYTES, pending: some(DISK_PAGES, 300) }],
      pendingRam: [some(RAM_PAGES, 5000)],
      harvest: () => rounds.shift()!,
      readBlocks: async () => {},
      capture: async ({ pending }) => {
        const aside = pending[0]!.count() + 3;
        return {
          written: [some(RAM_PAGES, 3), some(DISK_PAGES, 0)],
          aside: [
            { region: 0, pages: Uint32Array.from({ length: aside }, (_, i) => i), bytes: new Uint8Array() },
          ],
        };
      },
    });
    try {
      const into = Buffer.alloc(BATCH_PAGES * PAGE_BYTES);
      const expected: number[] = [];
      let givenPages = 0;
      for (;;) {
        expected.push(source.expectedBytes / PAGE_BYTES);
        const run = await source.next(into);
        if (run === null) break;
        givenPages += run.pages.length;
      }
      const [first, second, third] = [5300, 5300 + 2000 + 50, 5300 + 2000 + 10 + 50];
      assert.deepEqual([...new Set(expected)], [first, second, third, third + 3]);
      assert.equal(givenPages, third + 3, 'the last figure is what was given');
    } finally {
      closeMemory(memory);
    }
  });
});
