import assert from 'node:assert/strict';
import { closeSync, mkdirSync, renameSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type BlockEntry, BlockList } from '../../../../src/store/snapshot/block-list.js';
import {
  areRegions,
  type DescribedRegion,
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
/** Arrays and objects, nested to this depth. */
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

describe('the file of a snapshot', () => {
  let dir: string;
  beforeEach(function () {
    dir = scratchDir(this);
    mkdirSync(join(dir, 'snapshots'));
  });
  afterEach(function () {
    dropScratch(this);
  });

  const write = (named: SnapshotDescription, blocks: readonly BlockEntry[] = []): void =>
    closeSync(writeSnapshotFile(dir, named, listOf(blocks), Buffer.alloc(0)).fd);

  it('is read as it was written', () => {
    const blocks = [block(), block({ block: 3, nonZeroPages: 1 }), block({ region: 1, nonZeroPages: 1 })];
    const state = Buffer.from([1, 2, 3]);
    const { sizeBytes, fd } = writeSnapshotFile(dir, description, listOf(blocks), state);
    closeSync(fd);
    const { blocks: found, ...read } = readSnapshotFile(dir, id);
    assert.deepEqual([...found], blocks);
    assert.deepEqual(read, { description, state, sizeBytes });
  });

  it('can have a description that is nested 64 levels deep', () => {
    const deep = { ...description, machine: nested(63) };
    write(deep);
    assert.deepEqual(readSnapshotFile(dir, id).description, deep);
  });

  it('is refused if its description is nested deeper', () => {
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

  const [region] = description.regions as [DescribedRegion];
  const text = '1' as unknown as number;
  const fields: Record<string, [field: string, over: Partial<SnapshotDescription>]> = {
    'an unknown kind': ['kind', { kind: 'x' as 'file' }],
    'a negative size': ['memoryBytes', { memoryBytes: -1 }],
    'no size': ['diskBytes', { diskBytes: undefined as unknown as number }],
    'two regions with the same name': ['regions', { regions: [region, region] }],
    'a region name that is a path': [
      'regions[0].name',
      { regions: [{ name: '../x', sizeBytes: 1, nonZeroPages: 0 }] },
    ],
    'a parent that is a path': ['parent', { parent: '../x' }],
    'a size that no store can have': ['packBytes', { packBytes: 2 ** 53 - 1 }],
    'more non-zero pages than a region has': [
      'regions[1]',
      { regions: [region, { name: 'x', sizeBytes: 4096, nonZeroPages: 2 }] },
    ],
    'a page count that is not a number': [
      'regions[0].nonZeroPages',
      { regions: [{ name: 'x', sizeBytes: 4096, nonZeroPages: text }] },
    ],
    'an invalid date': ['createdAt', { createdAt: 'yesterday' }],
  };
  for (const [what, [field, over]] of Object.entries(fields))
    it(`is refused if its description has ${what}, although the digest matches`, () => {
      write({ ...description, ...over });
      assert.throws(() => readSnapshotFile(dir, id), {
        code: 'DAMAGED',
        message: `snapshots/${id} at offset 32: the description has no valid field "${field}"`,
      });
    });

  it('is refused if its description is of another snapshot, although the digest matches', () => {
    const other = 'cd'.repeat(16);
    write({ ...description, id: other });
    renameSync(join(dir, 'snapshots', other), join(dir, 'snapshots', id));
    assert.throws(() => readSnapshotFile(dir, id), { code: 'DAMAGED', message: /of another snapshot$/ });
  });

  const lists: Record<string, BlockEntry[]> = {
    'a block beyond its region': [block({ block: 4 })],
    'a block of an unknown region': [block({ region: 2 })],
    'blocks out of order': [block({ block: 2 }), block({ block: 1 })],
    'a block twice': [block(), block()],
    'a block without non-zero pages': [block({ nonZeroPages: 0 })],
    'a block with too many pages': [block({ nonZeroPages: 513 })],
    'a block in pack 0': [block({ places: { pack: 0, chunk: 0 } })],
  };
  for (const [what, blocks] of Object.entries(lists))
    it(`is refused if it lists ${what}, although the digest matches`, () => {
      write(description, blocks);
      const wrong = blocks.length - 1;
      assert.throws(() => readSnapshotFile(dir, id), {
        code: 'DAMAGED',
        message: new RegExp(`: entry ${wrong} of the manifest blocks is not valid$`),
      });
    });
});

describe('the check of regions', () => {
  it('accepts valid names and sizes only', () => {
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
