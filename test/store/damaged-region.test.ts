/** Damage names the region that it affects, whichever verb finds it. */
import assert from 'node:assert/strict';
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { Damage, LivesnapError } from '../../src/errors.js';
import { closeMemory, createMemory } from '../../src/native/memory.js';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { FrameFlag } from '../../src/store/pack/pack-format.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { exportSnapshot } from '../../src/store/remote/export.js';
import type { Store } from '../../src/store/store.js';
import { copy, silent } from './copying.js';
import {
  basedOn,
  dropScratch,
  flipBit,
  load,
  MemorySource,
  newStore,
  noise,
  save,
  scratchDir,
} from './scratch.js';

const BLOCK_BYTES = 512 * PAGE_BYTES;
/** The page of disk1 that is damaged. */
const PAGE = 600;
const REGIONS = ['ram@0x0', 'disk0', 'disk1'];

interface Frame {
  readonly file: string;
  readonly offset: number;
}

/** The place of the frame with these pages of a pack: `page` null, that of its first manifest blocks. */
function frameOf(dir: string, name: string, page: number | null): Frame {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  try {
    const found = [...reader.frames].find(({ flags, first, chunks }) =>
      page === null ? (flags & FrameFlag.manifest) !== 0 : page >= first && page < first + chunks,
    );
    return { file: `packs/${name}`, offset: found!.offset };
  } finally {
    reader.close();
  }
}

describe('damage of one region', function () {
  this.timeout(60_000);
  let store: Store;
  let dir: string;
  let id: string;
  /** The pack that only disk1 uses. */
  let pack: string;
  const ram = noise(1, 40);
  const disk0 = noise(2, 700);
  const disk1 = noise(3, 700);

  beforeEach(async function () {
    ({ store, dir } = newStore(this));
    await save(store, { 'ram@0x0': ram, disk0 }, { tag: 'before' });
    const before = readdirSync(join(dir, 'packs'));
    ({ id } = await save(store, { 'ram@0x0': ram, disk0, disk1 }, { tag: 'm' }));
    [pack] = readdirSync(join(dir, 'packs')).filter((name) => !before.includes(name)) as [string];
  });
  afterEach(function () {
    dropScratch(this);
  });

  async function fillMemories(): Promise<void> {
    const snapshot = await store.openSnapshot(id);
    const memories = snapshot.regions.map(({ sizeBytes }) => createMemory(sizeBytes));
    try {
      const write = (): never => assert.fail('a memory is filled natively');
      await snapshot.fill({ regions: snapshot.regions, memories, write });
    } finally {
      memories.forEach(closeMemory);
      snapshot.close();
    }
  }

  async function toStream(): Promise<void> {
    const stream = new PassThrough().resume();
    try {
      await store.getDisk(id, 1, stream);
    } finally {
      stream.end();
    }
  }

  async function saveOnIt(): Promise<void> {
    const session = await store.beginSave({ regions: basedOn(id, REGIONS) });
    try {
      const contents = { 'ram@0x0': ram, disk0, disk1 };
      await session.store(new MemorySource(contents, { 'ram@0x0': [0], disk0: [0], disk1: [PAGE] }));
    } finally {
      await session.abort();
    }
  }

  const target = (test: Mocha.Context): string => join(scratchDir(test), 'target');

  /** Each way to read the snapshot. */
  const readers = (test: Mocha.Context): Record<string, () => Promise<unknown> | unknown> => ({
    'restore, to memories': fillMemories,
    'restore, to a sink': () => load(store, id),
    'disk, to a file': () => store.getDisk(id, 1, target(test)),
    'disk, to a stream': toStream,
    export: () => exportSnapshot({ ...silent, storeDir: dir, ref: id, to: target(test) }),
    'copy --to': () => copy(dir, 'to', target(test), [id]),
    'copy --from': () => copy(target(test), 'from', dir, [id]),
  });

  /** The damage that a reader names, after a look at its message. */
  async function damageFrom(what: string, read: () => Promise<unknown> | unknown): Promise<Damage> {
    const error = await Promise.resolve()
      .then(read)
      .then(
        () => assert.fail(`${what} found no damage`),
        (thrown: LivesnapError) => thrown,
      );
    assert.equal(error.code, 'DAMAGED', `${what}: ${error.stack}`);
    const { damage } = error;
    assert.ok(damage, `${what}: ${error.message}`);
    const { fromBytes, toBytes } = damage;
    const range =
      fromBytes === null ? '' : ` offset 0x${fromBytes.toString(16)} to 0x${toBytes!.toString(16)}`;
    const where = `${damage.file}${damage.offset === null ? '' : ` at offset ${damage.offset}`}`;
    const text = `snapshot ${id} is damaged: disk1${range} cannot be read: ${where}: `;
    assert.equal(error.message.replace(/^remote: /, '').slice(0, text.length), text, what);
    assert.deepEqual(error.toJSON().damage, damage, what);
    return damage;
  }

  it('is named with the page, by all that read it', async function () {
    const frame = frameOf(dir, pack, PAGE);
    flipBit(join(dir, frame.file), frame.offset + 500);
    for (const [what, read] of Object.entries(readers(this))) {
      const { fromBytes, toBytes, ...others } = await damageFrom(what, read);
      assert.deepEqual(others, { ...frame, snapshot: id, region: 'disk1' }, what);
      assert.equal(toBytes! - fromBytes!, PAGE_BYTES, what);
      // A frame has 16 chunks. Which of them is read first is up to the reader.
      assert.ok(Math.abs(fromBytes! / PAGE_BYTES - PAGE) < 16, `${what}: page ${fromBytes! / PAGE_BYTES}`);
    }
    const { ok, problems } = await store.check({ readData: true });
    assert.equal(ok, false);
    assert.deepEqual(
      problems.map(({ message, ...others }) => others),
      [{ ...frame, snapshots: [id], regions: [{ snapshot: id, region: 'disk1' }] }],
    );
    await store.getDisk(id, 0, target(this)); // which is whole
  });

  it('is named with the block where the manifest is damaged, by all that read it', async function () {
    const frame = frameOf(dir, pack, null);
    flipBit(join(dir, frame.file), frame.offset + 50);
    const all = {
      ...readers(this),
      diff: () => store.diff('before', id),
      'diff, the other way': () => store.diff(id, 'before'),
      'a save relative to it': saveOnIt,
      stats: () => store.stats(),
      gc: () => store.gc({ dryRun: true }),
      show: () => store.show(id),
    };
    for (const [what, read] of Object.entries(all)) {
      const damage = await damageFrom(what, read);
      // A native fill does not tell which block it was.
      const ranges: Record<string, [number | null, number | null]> = {
        'a save relative to it': [BLOCK_BYTES, disk1.length],
        'restore, to memories': [null, null],
      };
      const [fromBytes, toBytes] = ranges[what] ?? [0, BLOCK_BYTES];
      assert.deepEqual(damage, { ...frame, snapshot: id, region: 'disk1', fromBytes, toBytes }, what);
    }
    for (const readData of [false, true]) {
      const { problems } = await store.check({ readData });
      assert.deepEqual(
        problems.map(({ message, ...others }) => others),
        [{ ...frame, snapshots: [id], regions: [{ snapshot: id, region: 'disk1' }] }],
      );
    }
  });

  it('is named where a pack is missing, or has other chunks', async function () {
    const path = join(dir, 'packs', pack);
    const whole = readFileSync(path);
    const harms = { missing: () => rmSync(path), longer: () => appendFileSync(path, 'x') };
    for (const [how, harm] of Object.entries(harms)) {
      harm();
      for (const [what, read] of Object.entries(readers(this))) {
        const { file, snapshot, region } = await damageFrom(`${how}: ${what}`, read);
        assert.deepEqual([file, snapshot, region], [`packs/${pack}`, id, 'disk1'], `${how}: ${what}`);
      }
      const { problems } = await store.check({ readData: false });
      for (const { regions } of problems)
        if (regions.length > 0) assert.deepEqual(regions, [{ snapshot: id, region: 'disk1' }], how);
      assert.ok(problems.some(({ regions }) => regions.length > 0));
      writeFileSync(path, whole);
    }
  });

  it('is named for every region and snapshot that has the page', async () => {
    const again = await save(store, { disk7: disk1 });
    const frame = frameOf(dir, pack, PAGE);
    flipBit(join(dir, frame.file), frame.offset + 500);
    const { problems } = await store.check({ readData: true });
    assert.deepEqual(
      problems.map(({ message, ...others }) => others),
      [
        {
          ...frame,
          snapshots: [id, again.id].sort(),
          regions: [
            { snapshot: id, region: 'disk1' },
            { snapshot: again.id, region: 'disk7' },
          ].sort((a, b) => (a.snapshot < b.snapshot ? -1 : 1)),
        },
      ],
    );
  });

  it("of a snapshot's file names the snapshot and no region", async () => {
    flipBit(join(dir, 'snapshots', id), 60);
    await assert.rejects(load(store, id), (error: LivesnapError) => {
      assert.match(error.message, new RegExp(`^snapshot ${id} is damaged: snapshots/${id}: `));
      const nothing = { offset: null, region: null, fromBytes: null, toBytes: null };
      assert.deepEqual(error.damage, { file: `snapshots/${id}`, snapshot: id, ...nothing });
      return true;
    });
    const { problems } = await store.check({ readData: false });
    assert.deepEqual(
      problems.map(({ snapshots, regions }) => ({ snapshots, regions })),
      [{ snapshots: [id], regions: [] }],
    );
  });
});
