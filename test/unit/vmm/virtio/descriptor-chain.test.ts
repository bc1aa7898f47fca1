import assert from 'node:assert/strict';
import type { DmaMemory } from '../../../../src/vmm/memory/guest-memory.js';
import { MAX_DESCRIPTORS, readChain, Violation } from '../../../../src/vmm/virtio/descriptor-chain.js';
import { PlainRam } from './plain-ram.js';

const TABLE = 0x1000;
const INDIRECT = 0x4000;
const HIGH = 2 ** 32;
type Entry = [gpa: number | bigint, length: number, flags?: number, next?: number];

describe('readChain', () => {
  let plain: PlainRam;
  before(() => {
    plain = new PlainRam([
      { gpa: 0, sizeBytes: 1 << 20 },
      { gpa: HIGH, sizeBytes: 1 << 20 },
    ]);
  });
  after(() => plain.close());

  function put(table: number, entries: readonly Entry[]): void {
    entries.forEach(([gpa, length, flags = 0, next = 0], i) => {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64LE(BigInt(gpa), 0);
      bytes.writeUInt32LE(length, 8);
      bytes.writeUInt16LE(flags, 12);
      bytes.writeUInt16LE(next, 14);
      plain.ram.write(table + i * 16, bytes);
    });
  }

  const read = (entries: readonly Entry[], { size = 8, indirect = true, head = 0 } = {}) => {
    put(TABLE, entries);
    return readChain(plain.ram, TABLE, head, { size, indirect });
  };

  it('returns readable and writable ranges in order', () => {
    assert.deepEqual(
      read([
        [0x100, 16, 1, 2],
        [HIGH, 5, 2],
        [0x200, 8, 1, 3],
        [HIGH - 0x1_0000_0000 + 0x300, 1, 3, 1],
      ]),
      {
        head: 0,
        readable: [
          { gpa: 0x100, length: 16 },
          { gpa: 0x200, length: 8 },
        ],
        writable: [
          { gpa: 0x300, length: 1 },
          { gpa: HIGH, length: 5 },
        ],
      },
    );
  });

  it('follows an indirect table, also behind direct descriptors', () => {
    put(INDIRECT, [
      [0x200, 8, 1, 2],
      [0x900, 3, 2],
      [0x300, 4, 3, 1],
    ]);
    assert.deepEqual(
      read([
        [0x100, 1, 1, 5],
        [0, 0],
        [0, 0],
        [0, 0],
        [0, 0],
        [INDIRECT, 48, 4 | 2],
      ]),
      {
        head: 0,
        readable: [
          { gpa: 0x100, length: 1 },
          { gpa: 0x200, length: 8 },
        ],
        writable: [
          { gpa: 0x300, length: 4 },
          { gpa: 0x900, length: 3 },
        ],
      },
    );
  });

  it('accepts a chain as long as the queue, and an indirect table of the largest size', () => {
    const chain = Array.from({ length: 8 }, (_, i): Entry => [0x100, 1, i < 7 ? 1 : 0, i + 1]);
    assert.equal(read(chain).readable.length, 8);
    put(
      INDIRECT,
      Array.from(
        { length: MAX_DESCRIPTORS },
        (_, i): Entry => [0x100, 1, i + 1 < MAX_DESCRIPTORS ? 1 : 0, i + 1],
      ),
    );
    assert.equal(read([[INDIRECT, MAX_DESCRIPTORS * 16, 4]]).readable.length, MAX_DESCRIPTORS);
  });

  it('refuses a chain of 4 GiB, and no shorter one', () => {
    // RAM as large as that: only the descriptors are read.
    const large = {
      read: (gpa: number, into: Uint8Array) => plain.ram.read(gpa, into),
      contains: () => true,
    } as unknown as DmaMemory;
    const chainOf = (...lengths: number[]): unknown => {
      put(
        TABLE,
        lengths.map((length, i): Entry => [0x100, length, i + 1 < lengths.length ? 1 : 0, i + 1]),
      );
      return readChain(large, TABLE, 0, { size: 8, indirect: true });
    };
    chainOf(2 ** 31, 2 ** 31 - 1);
    assert.throws(() => chainOf(2 ** 31, 2 ** 31), /a chain of 4 GiB or more/);
    assert.throws(() => chainOf(0xffff_ffff, 1), Violation);
  });

  const loop: Entry[] = [
    [0x100, 1, 1, 1],
    [0x100, 1, 1, 0],
  ];
  const table = (...entries: Entry[]): void => put(INDIRECT, entries);
  for (const [title, entries, message, prepare] of [
    ['that is a loop', loop, /linked more than 8 descriptors/],
    ['linked beyond the table', [[0x100, 1, 1, 8]], /linked descriptor 8 of 8/],
    ['with an empty buffer', [[0x100, 0]], /an empty buffer/],
    ['with a buffer outside RAM', [[1 << 20, 1]], /1 bytes at 0x100000, which is not RAM/],
    ['with a buffer that ends outside RAM', [[(1 << 20) - 1, 2]], /not RAM/],
    ['with a buffer that ends beyond 2^64', [[2n ** 64n - 1n, 0xffff_ffff]], /not RAM/],
    ['with an address that a number holds inexactly', [[2n ** 63n + 1n, 1]], /0x8000000000000001/],
    [
      'with a readable buffer behind a writable one',
      [
        [0x100, 1, 3, 1],
        [0x100, 1],
      ],
      /readable buffer after a writable one/,
    ],
    ['with INDIRECT and NEXT', [[INDIRECT, 16, 5, 1]], /both INDIRECT and NEXT/],
    ['with an empty indirect table', [[INDIRECT, 0, 4]], /indirect table of 0 bytes/],
    ['with an indirect table that ends within a descriptor', [[INDIRECT, 24, 4]], /table of 24 bytes/],
    ['with a large indirect table', [[INDIRECT, (MAX_DESCRIPTORS + 1) * 16, 4]], /indirect table of 16400/],
    ['with an indirect table outside RAM', [[(1 << 20) - 16, 32, 4]], /not RAM/],
    [
      'with an indirect table in an indirect table',
      [[INDIRECT, 16, 4]],
      /into an indirect table/,
      () => table([0x100, 16, 4]),
    ],
    ['with a loop in an indirect table', [[INDIRECT, 32, 4]], /to a loop/, () => table(...loop)],
    [
      'linked beyond an indirect table',
      [[INDIRECT, 32, 4]],
      /linked descriptor 2 of an/,
      () => table([0, 1, 1, 2]),
    ],
  ] as readonly (readonly [string, Entry[], RegExp, (() => void)?])[]) {
    it(`refuses a chain ${title}`, () => {
      prepare?.();
      assert.throws(
        () => read(entries),
        (error) => error instanceof Violation && message.test(error.message),
      );
    });
  }

  it('refuses an indirect table that was not negotiated', () => {
    assert.throws(() => read([[INDIRECT, 16, 4]], { indirect: false }), /without having negotiated it/);
  });
});
