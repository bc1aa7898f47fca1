/** Disks of saved machines on the command line: disk, get, show, ls, diff. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES, type SnapshotMetadata } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { basedOn, diskMetadata, MemorySource, machineMetadata, noise } from '../store/scratch.js';
import { World } from './cli.js';

describe('livesnap disk and diff', function () {
  this.timeout(180_000);
  let world: World;
  const disk0 = noise(1, 20);
  const disk1 = noise(2, 9).subarray(0, 8 * PAGE_BYTES + 512);

  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  async function save(
    regions: Record<string, Buffer>,
    metadata: SnapshotMetadata,
    parent: string | null = null,
  ) {
    const store = Store.open(world.store, { write: true, create: true });
    try {
      const session = await store.beginSave({ regions: basedOn(parent, Object.keys(regions)) });
      await session.store(new MemorySource(regions));
      return (await session.commit(metadata)).id;
    } finally {
      store.close();
    }
  }

  it('write the disks of a machine to files and to standard output', async () => {
    const ram = noise(3, 4);
    const metadata = { tag: 'm', memoryBytes: ram.length, diskBytes: disk0.length + disk1.length };
    await save({ 'ram@0x0': ram, disk0, disk1 }, machineMetadata(metadata));
    const at = (name: string): string => join(world.dir, name);
    for (const [number, bytes] of [
      ['0', disk0],
      ['disk1', disk1],
    ] as const) {
      assert.deepEqual(await world.json('disk', 'm', number, at('image')), { bytes: bytes.length });
      assert.ok(readFileSync(at('image')).equals(bytes));
    }
    const ran = await world.run(['disk', 'm', '1', '-']);
    assert.equal(ran.status, 0);
    const [row] = await world.json<{ diskBytes: number; memoryBytes: number }[]>('ls');
    assert.deepEqual([row!.memoryBytes, row!.diskBytes], [metadata.memoryBytes, metadata.diskBytes]);
    assert.match((await world.run(['show', 'm'])).stdout, /^disk1 +32\.5 KiB +36 KiB +-$/m);
    assert.match(
      (await world.fails(2, 'USAGE', ['disk', 'm', at('x')])).hint,
      /livesnap disk [0-9a-f]{32} 0 FILE/,
    );
    assert.match((await world.fails(2, 'USAGE', ['get', 'm', at('x')])).hint, /livesnap disk/);
    assert.match((await world.fails(3, 'NO_SUCH_REGION', ['disk', 'm', '2', at('x')])).hint, /disk0, disk1/);
    await world.fails(2, 'USAGE', ['disk', 'm', 'two', at('x')]);
  });

  it('write the only disk without its number', async () => {
    const id = await save({ disk0 }, diskMetadata({ tag: 'm-disk', diskBytes: disk0.length }));
    for (const [i, args] of [['disk'], ['get']].entries()) {
      const path = join(world.dir, `image-${i}`);
      const { stdout } = await world.run([...args, 'm-disk', path]);
      assert.equal(stdout, `Wrote 80 KiB to ${path}\n`);
      assert.ok(readFileSync(path).equals(disk0));
    }
    assert.match((await world.run(['show', id])).stdout, /^Kind +disk$/m);
    const refused = await world.fails(2, 'USAGE', ['restore', 'm-disk']);
    assert.match(refused.message, /holds disks, not a machine/);
    assert.match(refused.hint, /--block snapshot=m-disk:disk0/);
  });

  it('compare snapshots', async () => {
    const a = await save({ disk0, disk1 }, diskMetadata({ tag: 'a' }));
    const changed = Buffer.from(disk0);
    changed.set(noise(9, 2), 4 * PAGE_BYTES);
    await save({ disk0: changed, disk1 }, diskMetadata({ tag: 'b' }), a);
    const ranges = [{ fromBytes: 4 * PAGE_BYTES, toBytes: 6 * PAGE_BYTES }];
    const both = (bytes: number) => ({ sizeBytes: [bytes, bytes] });
    const regions = [
      { region: 'disk0', ...both(disk0.length), pages: 2, bytes: 2 * PAGE_BYTES },
      { region: 'disk1', ...both(disk1.length), pages: 0, bytes: 0 },
    ];
    assert.deepEqual(await world.json('diff', 'a', 'b'), { regions });
    assert.deepEqual(await world.json('diff', 'a', 'b', '--ranges'), {
      regions: [
        { ...regions[0], ranges },
        { ...regions[1], ranges: [] },
      ],
    });
    const { stdout } = await world.run(['diff', 'a', 'b', '--ranges']);
    assert.match(stdout, /^disk0 +80 KiB +80 KiB +2 +8 KiB$/m);
    assert.match(stdout, /^disk0 offset 0x4000 to 0x6000$/m);
    assert.match((await world.run(['show', 'b'])).stdout, /^disk0 +80 KiB +80 KiB +8 KiB$/m);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['diff', 'a', 'c']);
  });
});
