import assert from 'node:assert/strict';
import { readMemory } from '../../../src/native/memory.js';
import { PAGE_BYTES } from '../../../src/page-stream.js';
import { checkRegions, MachineRegions, regionsOf } from '../../../src/vmm/machine-regions.js';

const MIB = 1 << 20;
const GIB = 1024 * MIB;

const LOW = { name: 'ram@0x0', sizeBytes: 3 * GIB };
const HIGH = { name: 'ram@0x100000000', sizeBytes: GIB };
const DISK = { name: 'disk0', sizeBytes: MIB };

describe('regionsOf', () => {
  it('lists a region for each RAM slot', () => {
    assert.deepEqual(regionsOf({ memoryBytes: 64 * MIB }), [{ name: 'ram@0x0', sizeBytes: 64 * MIB }]);
    assert.deepEqual(regionsOf({ memoryBytes: 4 * GIB }), [LOW, HIGH]);
  });
});

describe('checkRegions', () => {
  it('accepts the regions of the machine', () => {
    checkRegions([LOW, HIGH], [LOW, HIGH]);
  });

  for (const [what, found, problem] of [
    ['lacks a region', [LOW], 'region ram@0x100000000 is missing'],
    ['has no regions', [], 'region ram@0x0 is missing'],
    ['has another region', [LOW, HIGH, DISK], 'region disk0 does not belong to the machine'],
    [
      'has a smaller region',
      [LOW, { ...HIGH, sizeBytes: PAGE_BYTES }],
      'region ram@0x100000000 has 4096 bytes, not 1073741824',
    ],
    [
      'has a larger region',
      [{ ...LOW, sizeBytes: 4 * GIB }, HIGH],
      'region ram@0x0 has 4294967296 bytes, not 3221225472',
    ],
    [
      'has its regions in another order',
      [HIGH, LOW],
      'the regions are not ram@0x0, ram@0x100000000, each once and in this order',
    ],
    [
      'has a region twice',
      [LOW, HIGH, HIGH],
      'the regions are not ram@0x0, ram@0x100000000, each once and in this order',
    ],
  ] as const) {
    it(`refuses a snapshot that ${what}`, () => {
      assert.throws(() => checkRegions([LOW, HIGH], found), {
        code: 'BAD_STATE',
        message: `the saved state is invalid: ${problem}`,
      });
    });
  }
});

describe('MachineRegions', () => {
  it('writes restored pages into the memory of their region', async () => {
    const regions = MachineRegions.allocate({ memoryBytes: 3 * GIB + 2 * MIB });
    try {
      const sink = regions.sink();
      assert.deepEqual(sink.regions, regions.list);
      assert.deepEqual(
        sink.memories,
        regions.slots.map(({ memory }) => memory),
      );
      await sink.write({ region: 1, pages: Uint32Array.of(5) }, Buffer.alloc(PAGE_BYTES, 'page'));
      const into = Buffer.alloc(4);
      readMemory(regions.slots[1]!.memory, 5 * PAGE_BYTES, into);
      assert.equal(into.toString(), 'page');
    } finally {
      regions.free();
    }
    assert.throws(() => readMemory(regions.slots[0]!.memory, 0, Buffer.alloc(1)), { code: 'MACHINE_GONE' });
  });
});
