import assert from 'node:assert/strict';
import { closeSync, mkdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type BlockEntry, BlockList } from '../../../../src/store/snapshot/block-list.js';
import {
  areRegions,
  parseDescription,
  type SnapshotDescription,
} from '../../../../src/store/snapshot/description.js';
import { readSnapshotFile, writeSnapshotFile } from '../../../../src/store/snapshot/snapshot-file.js';
import { dropScratch, scratchDir } from '../../../store/scratch.js';

const id = 'ab'.repeat(16);
const description: SnapshotDescription = {
  id,
  kind: 'machine',
  vm: 'a ✓',
  parent: null,
  createdAt: '2026-01-02T03:04:05.678Z',
  memoryBytes: 8 << 20,
  diskBytes: 0,
  packBytes: 5,
  regions: [
    { name: 'ram@0x0', sizeBytes: 8 << 20, nonZeroPages: 513 },
    { name: 'disk', sizeBytes: 4097, nonZeroPages: 1 },
  ],
  machine: { any: [1, 'x'] },
  host: null,
};
/** Arrays and objects within each other, so many. */
const nested = (depth: number): unknown =>
  JSON.parse('[{"a":'.repeat(depth >> 1) + (depth % 2 ? '[]' : '0') + '}]'.repeat(depth >> 1));
const block = (over: Partial<BlockEntry> = {}): BlockEntry => ({
  region: 0,
  block: 0,
  nonZeroPages: 512,
  places: { pack: 1, chunk: 4 },
  fingerprints: { pack: 0xffffffff, chunk: 3 },
  digest: 0xffffffffffffffffn,
  ...over,
});

function listOf(blocks: readonly BlockEntry[]): BlockList {
  const list = new BlockList();
  for (const block of blocks) list.push(block);
  return list;
}

describe('a snapshot’s file', () => {
  let dir: string;
  beforeEach(function () {
    dir = scratchDir(this);
    mkdirSync(join(dir, 'snapshots'));
  });
  afterEach(function () {
    dropScratch(this);
  });

  it('gives back what was written', () => {
    const blocks = [block(), block({ block: 3, nonZeroPages: 1 }), block({ region: 1, nonZeroPages: 1 })];
    const state = Buffer.from([1, 2, 3]);
    const { sizeBytes, fd } = writeSnapshotFile(dir, description, listOf(blocks), state);
    closeSync(fd);
    const { blocks: found, ...read } = readSnapshotFile(dir, id);
    assert.deepEqual([...found], blocks);
    assert.deepEqual(read, { description, state, sizeBytes });
  });

  it('may be described by 64 arrays and objects within each other', () => {
    const deep = { ...description, machine: nested(63) };
    closeSync(writeSnapshotFile(dir, deep, listOf([]), Buffer.alloc(0)).fd);
    assert.deepEqual(readSnapshotFile(dir, id).description, deep);
  });

  it('is refused when it is described by more, however many', () => {
    const path = join(dir, 'snapshots', id);
    for (const depth of [64, 5000, 300_000]) {
      const json = JSON.stringify({ ...description, machine: 'deep' });
      const bytes = Buffer.from(json.replace('"deep"', '['.repeat(depth) + ']'.repeat(depth)));
      assert.throws(() => parseDescription('a file', bytes, id), { code: 'DAMAGED', message: /nested/ });
      if (depth > 64) continue;
      closeSync(writeSnapshotFile(dir, { ...description, machine: nested(depth) }, listOf([]), bytes).fd);
      assert.throws(() => readSnapshotFile(dir, id), { code: 'DAMAGED' });
      unlinkSync(path);
    }
  });

  const wrong: Record<string, [Partial<SnapshotDescription>, BlockEntry[]]> = {
    'another id': [{ id: 'cd'.repeat(16) }, []],
    'a kind that is none': [{ kind: 'x' as 'file' }, []],
    'a size that is none': [{ memoryBytes: -1 }, []],
    'regions of one name': [{ regions: [description.regions[0]!, description.regions[0]!] }, []],
    'a name that is a path': [{ regions: [{ name: '../x', sizeBytes: 1, nonZeroPages: 0 }] }, []],
    'a parent that is a path': [{ parent: '../x' }, []],
    'a size that no store can have': [{ packBytes: 2 ** 53 - 1 }, []],
    'more pages than a region has': [{ regions: [{ name: 'x', sizeBytes: 4096, nonZeroPages: 2 }] }, []],
    'pages that are no number': [
      { regions: [{ name: 'x', sizeBytes: 4096, nonZeroPages: '1' as unknown as number }] },
      [],
    ],
    'no date': [{ createdAt: 'yesterday' }, []],
    'a block beyond its region': [{}, [block({ block: 4 })]],
    'a block of no region': [{}, [block({ region: 2 })]],
    'blocks out of order': [{}, [block({ block: 2 }), block({ block: 1 })]],
    'a block twice': [{}, [block(), block()]],
    'a block of nothing': [{}, [block({ nonZeroPages: 0 })]],
    'a block of too much': [{}, [block({ nonZeroPages: 513 })]],
    'a block that is nowhere': [{}, [block({ places: { pack: 0, chunk: 0 } })]],
  };
  for (const [what, [over, blocks]] of Object.entries(wrong))
    it(`is refused with ${what}, though its digest is right`, async () => {
      const named = { ...description, ...over };
      closeSync(writeSnapshotFile(dir, named, listOf(blocks), Buffer.alloc(0)).fd);
      if (named.id !== id) {
        const { renameSync } = await import('node:fs');
        renameSync(join(dir, 'snapshots', named.id), join(dir, 'snapshots', id));
      }
      assert.throws(() => readSnapshotFile(dir, id), { code: 'DAMAGED' });
    });

  it('knows regions', () => {
    assert.ok(areRegions([{ name: 'ram@0x0', sizeBytes: 0 }]));
    for (const bad of [
      null,
      [null],
      [{ name: 'A', sizeBytes: 1 }],
      [{ name: 'a', sizeBytes: 2 ** 45 }],
      [{ name: 'a', sizeBytes: 0.5 }],
    ])
      assert.ok(!areRegions(bad));
  });
});
