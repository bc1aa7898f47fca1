/**
 * Damaged golden stores: damaged as they are in test/fixtures, or by a named damage to a copy. The tests show which
 * files and snapshots check names, what a restore gives, and what repair heals, sets aside and reports as lost. Damage
 * here is what users, disks and newer versions of livesnap do to stores. Flipped bits are in flips.test.ts.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import xxhash from 'xxhash-wasm';
import { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import type { LostRange } from '../../src/store/types.js';
import { copyOfGolden, filesOf, GOLDEN_STORES, goldenSnapshots, sha256 } from '../fixtures/golden-stores.js';
import { Database } from '../sqlite.js';
import { dropScratch, load, noise, save } from './scratch.js';

const PAGE = 4096;
/** A format version that no livesnap will ever have. */
const NEWER = 0x7fffffff;
const { h64Raw } = await xxhash();

/** A problem as [file, tags of the snapshots]. In the name of a snapshot's file the tag stands for the ID. */
type Named = readonly [file: string, tags: readonly string[]];
/** A range of pages as [tag, region, from, to]. */
type Range = readonly [tag: string, region: string, fromPage: number, toPage: number];

interface Damage {
  readonly golden: string;
  readonly what: string;
  readonly damage?: (dir: string, golden: string) => void;
  /** The code with which opening is refused, if it is. */
  readonly refused?: string;
  readonly check?: readonly Named[];
  /** With --read-data, if that finds more. */
  readonly checkData?: readonly Named[];
  /** The codes of restores that fail, by tag. All other snapshots are intact. */
  readonly restore?: Record<string, string>;
  readonly repair: {
    readonly refused?: string;
    readonly lost?: readonly Range[];
    readonly gone?: readonly string[];
    readonly quarantine?: readonly string[];
    readonly healedChunks?: number;
  };
  /** Pages that, saved again, let repair heal the losses. */
  readonly heals?: () => Buffer;
}

const idOf = (golden: string, tag: string): string =>
  goldenSnapshots(golden).find((snapshot) => snapshot.tags.includes(tag))!.id;

const tagOf = (golden: string, id: string): string =>
  goldenSnapshots(golden).find((snapshot) => snapshot.id === id)?.tags[0] ?? id;

function change(path: string, edit: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  edit(bytes);
  writeFileSync(path, bytes);
}

const cut = (path: string, byBytes: number): void => truncateSync(path, statSync(path).size - byBytes);

function swap(a: string, b: string): void {
  renameSync(a, `${a}.aside`);
  renameSync(b, a);
  renameSync(`${a}.aside`, b);
}

/** Raises the version at `at` and corrects the XXH64 at `sumAt`, which is of the bytes from `from`. */
const raise = (path: string, place: (size: number) => { at: number; from: number; sumAt: number }): void =>
  change(path, (bytes) => {
    const { at, from, sumAt } = place(bytes.length);
    bytes.writeUInt32LE(NEWER, at);
    bytes.writeBigUInt64LE(h64Raw(bytes.subarray(from, sumAt)), sumAt);
  });

const PACK_3 = '00000003-0.pack';

const PACK_7 = '00000007-0.pack';
/** Stands for a snapshot that the recipe truncated. No list has its ID. */
const UNLISTED_SNAPSHOT = 'a snapshot';

const ANCESTRY = ['a.Label_with-all.4', 'base', 'child'] as const;

/** Pages of the recipes, filled with `word NUMBER. `. */
function stamped(word: string, from: number, to: number): Buffer {
  const pages = Array.from({ length: to - from }, (_, i) => Buffer.alloc(PAGE, `${word} ${from + i}. `));
  return Buffer.concat(pages);
}

const DAMAGES_OF_VERSION_1: readonly Damage[] = [
  {
    golden: 'v1/damaged-packs',
    what: 'with damage in a frame of one pack and in the trailer of another',
    check: [['packs/00000005-0.pack', []]], // in its list of identities, which no snapshot needs
    checkData: [
      ['packs/00000001-0.pack', ['parent']],
      ['packs/00000005-0.pack', []],
    ],
    restore: { parent: 'DAMAGED' },
    repair: {
      lost: [['parent', 'ram@0x0', 16, 32]],
      quarantine: ['00000001-0.pack', '00000005-0.pack'],
    },
    heals: () => stamped('ram', 16, 32),
  },
  {
    golden: 'v1/repaired',
    what: 'with chunks that an earlier repair marked as lost',
    check: [
      ['packs/00000001-1.pack', ['holed']],
      ['packs/00000005-1.pack', ['blind']],
    ],
    restore: { holed: 'DAMAGED', blind: 'DAMAGED' },
    repair: {
      lost: [
        ['blind', 'ram@0x0', 0, 5],
        ['holed', 'ram@0x0', 16, 32],
      ],
      quarantine: ['00000001-0.pack', '00000005-0.pack', UNLISTED_SNAPSHOT],
    },
  },
  {
    golden: 'v1/no-index',
    what: 'without an index or segments',
    refused: 'NOT_A_STORE',
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with a missing index',
    damage: (dir) => rmSync(join(dir, 'store.db')),
    refused: 'NOT_A_STORE',
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with an index that was being replaced',
    damage: (dir) => renameSync(join(dir, 'store.db'), join(dir, 'store.db.next')),
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with a pack that lost its last bytes',
    damage: (dir) => cut(join(dir, 'packs', PACK_3), 100),
    check: [[`packs/${PACK_3}`, ANCESTRY]],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: { quarantine: [PACK_3] },
  },
  {
    golden: 'v1/whole',
    what: 'with a pack that lost its trailer, its manifest blocks and the end of a frame of pages',
    damage: (dir) => cut(join(dir, 'packs', PACK_3), 2500),
    check: [[`packs/${PACK_3}`, ANCESTRY]],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: {
      lost: [
        ['a.Label_with-all.4', 'disk', 5, 9],
        ['base', 'disk', 0, 9], // the places of its pages were in the lost blocks
        ['base', 'ram@0x0', 0, 512],
        ['base', 'ram@0x0', 1024, 1100],
        ['child', 'disk', 5, 9],
        ['child', 'ram@0x0', 1024, 1100], // a block that it shares with its parent
      ],
      quarantine: [PACK_3],
    },
  },
  {
    golden: 'v1/whole',
    what: 'with a missing pack',
    damage: (dir) => rmSync(join(dir, 'packs', PACK_7)),
    check: [[`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']]],
    restore: { 'a.Label_with-all.4': 'DAMAGED', child: 'DAMAGED' },
    repair: {
      lost: [
        ['a.Label_with-all.4', 'disk', 0, 9],
        ['a.Label_with-all.4', 'ram@0x0', 0, 512],
        ['child', 'disk', 0, 9],
        ['child', 'ram@0x0', 0, 512],
      ],
    },
  },
  {
    golden: 'v1/whole',
    what: 'with two packs that have swapped names',
    damage: (dir) => swap(join(dir, 'packs', PACK_3), join(dir, 'packs', PACK_7)),
    check: [
      [`packs/${PACK_3}`, ANCESTRY],
      [`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']],
    ],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: {
      // A frame is bound to the number of its pack.
      lost: [
        ['a.Label_with-all.4', 'disk', 0, 9],
        ['a.Label_with-all.4', 'ram@0x0', 0, 512],
        ['a.Label_with-all.4', 'ram@0x0', 1095, 1100],
        ['base', 'disk', 0, 9],
        ['base', 'ram@0x0', 0, 512],
        ['base', 'ram@0x0', 1024, 1100],
        ['child', 'disk', 0, 9],
        ['child', 'ram@0x0', 0, 512],
        ['child', 'ram@0x0', 1024, 1100],
      ],
      quarantine: [PACK_3, PACK_7],
    },
  },
  {
    golden: 'v1/whole',
    what: 'with a pack of another store under the right name',
    damage: (dir, golden) =>
      copyFileSync(
        join(GOLDEN_STORES, golden.replace('whole', 'repaired'), 'packs', PACK_3),
        join(dir, 'packs', PACK_3),
      ),
    check: [
      [`packs/${PACK_3}`, ANCESTRY],
      ['store.db', []],
    ],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: {
      lost: [
        ['a.Label_with-all.4', 'disk', 0, 4],
        ['a.Label_with-all.4', 'disk', 5, 9],
        ['a.Label_with-all.4', 'ram@0x0', 1095, 1100],
        ['a.Label_with-all.4', 'ram@0x0', 2, 8],
        ['base', 'disk', 0, 9],
        ['base', 'ram@0x0', 0, 512],
        ['base', 'ram@0x0', 1024, 1100],
        ['child', 'disk', 0, 4],
        ['child', 'disk', 5, 9],
        ['child', 'ram@0x0', 1024, 1100],
        ['child', 'ram@0x0', 2, 8],
      ],
      quarantine: [PACK_3],
    },
  },
  {
    golden: 'v1/whole',
    what: 'with a missing segment',
    damage: (dir) => rmSync(join(dir, 'segments/00000011.seg')),
    check: [['segments/00000011.seg', []]],
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with a truncated snapshot',
    damage: (dir, golden) => cut(join(dir, 'snapshots', idOf(golden, 'child')), 40),
    check: [['snapshots/child', ['child']]],
    restore: { child: 'DAMAGED' },
    repair: { gone: ['child'], quarantine: ['child'] },
  },
  {
    golden: 'v1/whole',
    what: 'with a tag of a snapshot that does not exist',
    damage: (dir) => writeFileSync(join(dir, 'tags/stray'), `${'0'.repeat(32)}\n`),
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with a tag whose file has other contents',
    damage: (dir) => writeFileSync(join(dir, 'tags/base'), 'what is this?'),
    check: [['tags/base', []]],
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'with an index of a newer format',
    damage: (dir) => {
      const database = new Database(join(dir, 'store.db'));
      database.pragma(`user_version = ${NEWER}`);
      database.close();
    },
    refused: 'NEWER_FORMAT',
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'with a pack whose header has a newer format',
    damage: (dir) => raise(join(dir, 'packs', PACK_7), () => ({ at: 8, from: 0, sumAt: 24 })),
    check: [[`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']]],
    restore: { 'a.Label_with-all.4': 'NEWER_FORMAT', child: 'NEWER_FORMAT' },
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'with a pack whose footer has a newer format',
    damage: (dir) =>
      raise(join(dir, 'packs', PACK_7), (size) => ({ at: size - 56, from: size - 64, sumAt: size - 8 })),
    check: [[`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']]],
    restore: { 'a.Label_with-all.4': 'NEWER_FORMAT', child: 'NEWER_FORMAT' },
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'with a snapshot of a newer format',
    damage: (dir, golden) =>
      change(join(dir, 'snapshots', idOf(golden, 'base')), (bytes) => {
        bytes.writeUInt32LE(NEWER, 8);
        createHash('sha256')
          .update(bytes.subarray(0, -32))
          .digest()
          .copy(bytes, bytes.length - 32);
      }),
    check: [['snapshots/base', ['base']]],
    restore: { base: 'NEWER_FORMAT' },
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'with a segment of a newer format', // it holds only hints, so nothing needs it
    damage: (dir) =>
      raise(join(dir, 'segments/00000011.seg'), (size) => ({ at: 8, from: 0, sumAt: size - 8 })),
    check: [['segments/00000011.seg', []]],
    repair: {},
  },
];

/** The same recipes with BLAKE3 have damage at the same places. */
const inVersion2 = (damage: Damage): Damage => ({ ...damage, golden: damage.golden.replace('v1', 'v2') });

const foreignPack = DAMAGES_OF_VERSION_1.find(({ what }) => what.startsWith('with a pack of another store'))!;

const DAMAGES: readonly Damage[] = [
  ...DAMAGES_OF_VERSION_1.flatMap((damage) => [damage, inVersion2(damage)]),
  {
    ...foreignPack,
    what: 'with a pack of another store that has other digests under the right name',
    damage: (dir) =>
      copyFileSync(join(GOLDEN_STORES, 'v2/repaired/packs', PACK_3), join(dir, 'packs', PACK_3)),
  },
  {
    golden: 'v2/mixed',
    what: 'with packs of two digests, and chunks that an earlier repair marked as lost',
    check: [['packs/00000005-1.pack', ['holed']]],
    restore: { holed: 'DAMAGED' },
    repair: { lost: [['holed', 'ram@0x0', 16, 20]], quarantine: ['00000005-0.pack'] },
    heals: () => stamped('holed', 16, 20),
  },
];

const contentsOf = (golden: string, tag: string): string[] =>
  goldenSnapshots(golden)
    .find((snapshot) => snapshot.tags.includes(tag))!
    .regions.map((region) => `${region.name} ${region.sha256}`);

const shortOf = (contents: Record<string, Buffer>): string[] =>
  Object.entries(contents).map(([name, bytes]) => `${name} ${sha256(bytes)}`);

/** The codes of restores that fail, by tag. */
async function restoresOf(store: Store, golden: string): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {};
  for (const { id, tags } of goldenSnapshots(golden)) {
    const [tag] = tags;
    try {
      assert.deepEqual(shortOf(await load(store, id)), contentsOf(golden, tag!), tag!);
    } catch (error) {
      if (!(error instanceof LivesnapError)) throw error;
      outcomes[tag!] = error.code;
    }
  }
  return outcomes;
}

async function checkOf(store: Store, golden: string, readData: boolean): Promise<Named[]> {
  const { problems } = await store.check({ readData });
  const named = new Map<string, Set<string>>();
  for (const { file, snapshots } of problems) {
    const name = file.replace(/[0-9a-f]{32}/, (id) => tagOf(golden, id));
    const tags = named.get(name) ?? new Set();
    for (const id of snapshots) tags.add(tagOf(golden, id));
    named.set(name, tags);
  }
  return [...named].map(([file, tags]): Named => [file, [...tags].sort()]).sort();
}

const rangesOf = (golden: string, lost: readonly LostRange[]): Range[] =>
  lost
    .map(
      ({ snapshot, region, fromBytes, toBytes }): Range => [
        tagOf(golden, snapshot),
        region,
        fromBytes / PAGE,
        Math.ceil(toBytes / PAGE),
      ],
    )
    .sort();

async function using<T>(dir: string, write: boolean, work: (store: Store) => Promise<T>): Promise<T> {
  const store = Store.open(dir, { write });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}

describe('a damaged golden store', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const {
    golden,
    what,
    damage,
    refused,
    check = [],
    checkData = check,
    restore = {},
    repair,
    heals,
  } of DAMAGES)
    it(`${what} is checked, restored and repaired as expected (${golden})`, async function () {
      const dir = copyOfGolden(this, golden);
      damage?.(dir, golden);
      if (refused)
        for (const write of [false, true]) assert.throws(() => Store.open(dir, { write }), { code: refused });
      else
        await using(dir, false, async (store) => {
          assert.deepEqual(await checkOf(store, golden, false), check);
          assert.deepEqual(await checkOf(store, golden, true), checkData);
          assert.deepEqual(await restoresOf(store, golden), restore);
        });

      const before = filesOf(dir);
      if (repair.refused) {
        await assert.rejects(Store.repair(dir), { code: repair.refused });
        assert.deepEqual(filesOf(dir), before, 'a refused repair changes nothing');
        return;
      }
      const { lost = [], gone = [], quarantine = [], healedChunks = 0 } = repair;
      const result = await Store.repair(dir);
      assert.deepEqual(rangesOf(golden, result.lost), lost);
      assert.equal(result.healedChunks, healedChunks);
      const there = existsSync(join(dir, 'quarantine')) ? readdirSync(join(dir, 'quarantine')) : [];
      assert.deepEqual(
        there.map((name) => tagOf(golden, name).replace(/^[0-9a-f]{32}$/, UNLISTED_SNAPSHOT)).sort(),
        quarantine,
      );
      const damaged = Object.fromEntries(lost.map(([tag]) => [tag, 'DAMAGED']));
      await using(dir, true, async (store) => {
        const left = goldenSnapshots(golden).filter(({ tags }) => !gone.includes(tags[0]!));
        assert.deepEqual(
          store.list().map(({ id }) => id),
          left.map(({ id }) => id),
        );
        const missing = Object.fromEntries(gone.map((tag) => [tag, 'NO_SUCH_SNAPSHOT']));
        assert.deepEqual(await restoresOf(store, golden), { ...damaged, ...missing });
        const named = (await checkOf(store, golden, true)).flatMap(([, tags]) => tags);
        assert.deepEqual([...new Set(named)].sort(), Object.keys(damaged).sort());
      });
      assert.deepEqual(
        rangesOf(golden, (await Store.repair(dir)).lost),
        lost,
        'a second repair reports the same',
      );

      if (heals) await using(dir, true, (store) => save(store, { elsewhere: heals() }));
      // Other losses come back with the packs of a backup, under their old names.
      else if (lost.length > 0 && damage)
        cpSync(join(GOLDEN_STORES, golden, 'packs'), join(dir, 'packs'), { recursive: true });
      else return;
      assert.deepEqual((await Store.repair(dir)).lost, []);
      await using(dir, true, async (store) => {
        assert.deepEqual(await restoresOf(store, golden), {});
        assert.deepEqual(await checkOf(store, golden, true), []);
      });
    });

  it('is healed by a later save of the lost page and block (v1/repaired)', async function () {
    const dir = copyOfGolden(this, 'v1/repaired');
    // The lost block comes back with a machine that has the same pages at the same addresses: they get the same places.
    await using(dir, true, (store) =>
      save(store, { 'ram@0x0': stamped('blind', 0, 5), elsewhere: stamped('ram', 16, 32) }),
    );
    const { lost, healedChunks } = await Store.repair(dir);
    assert.deepEqual([lost, healedChunks], [[], 18]);
    await using(dir, true, async (store) => {
      assert.deepEqual(await restoresOf(store, 'v1/repaired'), {});
      assert.deepEqual(await checkOf(store, 'v1/repaired', true), []);
    });
  });

  it('keeps no leftovers of interrupted writes after a repair and a gc (v1/no-index)', async function () {
    const dir = copyOfGolden(this, 'v1/no-index');
    await Store.repair(dir);
    assert.ok(existsSync(join(dir, 'packs/00000063-0.pack')), 'repair cannot know which save wrote it');
    await using(dir, true, async (store) => {
      await store.gc({ dryRun: false });
      assert.deepEqual(readdirSync(join(dir, 'tags')).sort(), ['child', 'file', 'parent']);
      assert.ok(!existsSync(join(dir, 'packs/00000063-0.pack')));
      assert.deepEqual(await restoresOf(store, 'v1/no-index'), {});
      // The number of a pack that repair has seen is never used again.
      await save(store, { 'ram@0x0': noise(1, 1) });
      assert.ok(readdirSync(join(dir, 'packs')).some((name) => name > '00000063'));
    });
  });

  it('with an older index from a backup gets its newer files back from repair (v1/whole)', async function () {
    const dir = copyOfGolden(this, 'v1/whole');
    const { id } = await using(dir, true, (store) =>
      save(store, { 'ram@0x0': noise(1, 3) }, { parent: idOf('v1/whole', 'base'), tag: 'newer' }),
    );
    copyFileSync(join(GOLDEN_STORES, 'v1/whole/store.db'), join(dir, 'store.db'));
    await using(dir, false, async (store) =>
      assert.throws(() => store.find(id), { code: 'NO_SUCH_SNAPSHOT' }),
    );
    assert.deepEqual((await Store.repair(dir)).lost, []);
    await using(dir, true, async (store) => {
      assert.equal(store.resolve('newer'), id);
      assert.deepEqual(await load(store, id), { 'ram@0x0': noise(1, 3) });
      assert.deepEqual(await restoresOf(store, 'v1/whole'), {});
      assert.deepEqual(await checkOf(store, 'v1/whole', true), []);
    });
  });
});
