import assert from 'node:assert/strict';
import { BitSet } from '../../../../src/bit-set.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../../../src/page-stream.js';
import { DiskSource } from '../../../../src/vmm/disk/disk-source.js';

const blocks = (size: number, ...members: number[]): BitSet => {
  const set = new BitSet(size);
  for (const member of members) set.add(member);
  return set;
};

describe('DiskSource', () => {
  const into = new Uint8Array(BATCH_PAGES * PAGE_BYTES);
  async function takeAll(source: DiskSource): Promise<[number, number[]][]> {
    const runs: [number, number[]][] = [];
    for (let run = await source.next(into); run !== null; run = await source.next(into))
      runs.push([run.region, [...run.pages]]);
    return runs;
  }

  it('reads each disk in ascending batches', async () => {
    const all = new BitSet(1000);
    all.addRange(0, 600);
    const source = new DiskSource(
      [
        { sizeBytes: 1000 * PAGE_BYTES, pending: all },
        { sizeBytes: 10 * PAGE_BYTES, pending: blocks(10, 3, 7) },
      ],
      2,
      async (_disk, _blocks, bytes) => {
        assert(bytes.length <= into.length);
      },
    );
    const runs = await takeAll(source);
    assert.deepEqual(
      runs.map(([region, pages]) => [region, pages.length]),
      [
        [2, 256],
        [2, 256],
        [2, 88],
        [3, 2],
      ],
    );
  });

  it('reads again what was written until the moment, and only that', async () => {
    const source = new DiskSource(
      [{ sizeBytes: 10 * PAGE_BYTES, pending: blocks(10, 1) }],
      0,
      async () => {},
    );
    assert.deepEqual(await takeAll(source), [[0, [1]]]);
    source.addWritten([blocks(10, 2)]);
    assert.deepEqual(await takeAll(source), []);
    source.addWritten([blocks(10, 5)]);
    assert.deepEqual([...source.late[0]!], [2, 5]);
    source.freeze();
    assert.deepEqual(await takeAll(source), [[0, [2, 5]]]);
  });

  it('keeps what was not read before the moment', async () => {
    const source = new DiskSource(
      [{ sizeBytes: 10 * PAGE_BYTES, pending: blocks(10, 1, 9) }],
      0,
      async () => {},
    );
    assert.deepEqual([...source.late[0]!], [1, 9]);
    source.freeze();
    assert.deepEqual(await takeAll(source), [[0, [1, 9]]]);
  });
});
