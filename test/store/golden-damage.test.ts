/**
 * Golden stores that are damaged, as they lie in test/fixtures or by a named damage done to a copy: which files and
 * snapshots check names, what a restore gives, what repair heals, sets aside and says is lost. What a flipped bit does
 * is flips.test.ts's; this is about what users do to stores, and disks, and newer versions of livesnap.
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
import Database from 'better-sqlite3';
import xxhash from 'xxhash-wasm';
import { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import type { LostRange } from '../../src/store/types.js';
import { copyOfGolden, filesOf, GOLDEN_STORES, goldenSnapshots, sha256 } from '../fixtures/golden-stores.js';
import { dropScratch, load, noise, save } from './scratch.js';

const PAGE = 4096;
/** A format version that no livesnap will have. */
const NEWER = 0x7fffffff;
const { h64Raw } = await xxhash();

/** A problem as [file, snapshots by tag]; of snapshots' files the tag stands for the id. */
type Named = readonly [file: string, tags: readonly string[]];
/** A range of pages as [tag, region, from, to]. */
type Range = readonly [tag: string, region: string, fromPage: number, toPage: number];

interface Damage {
  readonly golden: string;
  readonly what: string;
  readonly damage?: (dir: string) => void;
  /** Opening is refused, so there is nothing to check or restore. */
  readonly refused?: string;
  readonly check?: readonly Named[];
  /** With --read-data, where that finds more. */
  readonly checkData?: readonly Named[];
  /** What a restore fails with, by tag; the others are whole. */
  readonly restore?: Record<string, string>;
  readonly repair: {
    readonly refused?: string;
    readonly lost?: readonly Range[];
    readonly gone?: readonly string[];
    readonly quarantine?: readonly string[];
    readonly healedChunks?: number;
  };
  /** The same pages, saved again, make repair heal what is lost. */
  readonly heals?: () => Buffer;
}

const idOf = (golden: string, tag: string): string =>
  goldenSnapshots(golden).find((snapshot) => snapshot.tag === tag)!.id;

const tagOf = (golden: string, id: string): string =>
  goldenSnapshots(golden).find((snapshot) => snapshot.id === id)?.tag ?? id;

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

/** Raises the version at `at`, and makes the XXH64 at `sumAt`, of the bytes from `from`, right again. */
const raise = (path: string, place: (size: number) => { at: number; from: number; sumAt: number }): void =>
  change(path, (bytes) => {
    const { at, from, sumAt } = place(bytes.length);
    bytes.writeUInt32LE(NEWER, at);
    bytes.writeBigUInt64LE(h64Raw(bytes.subarray(from, sumAt)), sumAt);
  });

const PACK_3 = '00000003-0.pack';

const PACK_7 = '00000007-0.pack';
/** Of a snapshot that the recipe tore, and that no list has. */
const QUARANTINED_SNAPSHOT = readdirSync(join(GOLDEN_STORES, 'v1/repaired/quarantine')).find(
  (name) => !name.endsWith('.pack'),
)!;

const ANCESTRY = ['a.Label_with-all.4', 'base', 'child'] as const;

/** The pages that the recipes stamped, `word NUMBER. ` over and over. */
function stamped(word: string, from: number, to: number): Buffer {
  const pages = Array.from({ length: to - from }, (_, i) => Buffer.alloc(PAGE, `${word} ${from + i}. `));
  return Buffer.concat(pages);
}

const DAMAGES: readonly Damage[] = [
  {
    golden: 'v1/damaged-packs',
    what: 'as it lies, with a frame of one pack and the trailer of another damaged',
    check: [['packs/00000005-0.pack', []]], // its list of identities: no snapshot needs it
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
    what: 'as it lies, with what an earlier repair found lost',
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
      quarantine: ['00000001-0.pack', '00000005-0.pack', QUARANTINED_SNAPSHOT],
    },
  },
  {
    golden: 'v1/no-index',
    what: 'as it lies, without an index',
    refused: 'NOT_A_STORE',
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'its index is missing',
    damage: (dir) => rmSync(join(dir, 'store.db')),
    refused: 'NOT_A_STORE',
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'its index was about to be replaced',
    damage: (dir) => renameSync(join(dir, 'store.db'), join(dir, 'store.db.next')),
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'a pack lost its last bytes',
    damage: (dir) => cut(join(dir, 'packs', PACK_3), 100),
    check: [[`packs/${PACK_3}`, ANCESTRY]],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: { quarantine: [PACK_3] },
  },
  {
    golden: 'v1/whole',
    what: 'a pack lost its trailer, the blocks before it, and the end of its second frame of pages',
    damage: (dir) => cut(join(dir, 'packs', PACK_3), 2500),
    check: [[`packs/${PACK_3}`, ANCESTRY]],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: {
      lost: [
        ['a.Label_with-all.4', 'disk', 5, 9],
        ['base', 'disk', 0, 9], // its blocks are gone, and with them where its pages are
        ['base', 'ram@0x0', 0, 512],
        ['base', 'ram@0x0', 1024, 1100],
        ['child', 'disk', 5, 9],
        ['child', 'ram@0x0', 1024, 1100], // a block that it has of its parent
      ],
      quarantine: [PACK_3],
    },
  },
  {
    golden: 'v1/whole',
    what: 'a pack is missing',
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
    what: 'two packs have changed names',
    damage: (dir) => swap(join(dir, 'packs', PACK_3), join(dir, 'packs', PACK_7)),
    check: [
      [`packs/${PACK_3}`, ANCESTRY],
      [`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']],
    ],
    restore: { 'a.Label_with-all.4': 'DAMAGED', base: 'DAMAGED', child: 'DAMAGED' },
    repair: {
      // a frame is bound to its pack's number
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
    what: 'a pack of another store has the right name',
    damage: (dir) =>
      copyFileSync(join(GOLDEN_STORES, 'v1/repaired/packs', PACK_3), join(dir, 'packs', PACK_3)),
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
    what: 'a segment is missing',
    damage: (dir) => rmSync(join(dir, 'segments/00000011.seg')),
    check: [['segments/00000011.seg', []]],
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'a snapshot is torn',
    damage: (dir) => cut(join(dir, 'snapshots', idOf('v1/whole', 'child')), 40),
    check: [['snapshots/child', ['child']]],
    restore: { child: 'DAMAGED' },
    repair: { gone: ['child'], quarantine: ['child'] },
  },
  {
    golden: 'v1/whole',
    what: 'a tag names a snapshot that is not there',
    damage: (dir) => writeFileSync(join(dir, 'tags/stray'), `${'0'.repeat(32)}\n`),
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'a tag’s file is not of a tag',
    damage: (dir) => writeFileSync(join(dir, 'tags/base'), 'what is this?'),
    check: [['tags/base', []]],
    repair: {},
  },
  {
    golden: 'v1/whole',
    what: 'an index has a newer format',
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
    what: 'a pack has a newer format, by its header',
    damage: (dir) => raise(join(dir, 'packs', PACK_7), () => ({ at: 8, from: 0, sumAt: 24 })),
    check: [[`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']]],
    restore: { 'a.Label_with-all.4': 'NEWER_FORMAT', child: 'NEWER_FORMAT' },
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'a pack has a newer format, by its footer',
    damage: (dir) =>
      raise(join(dir, 'packs', PACK_7), (size) => ({ at: size - 56, from: size - 64, sumAt: size - 8 })),
    check: [[`packs/${PACK_7}`, ['a.Label_with-all.4', 'child']]],
    restore: { 'a.Label_with-all.4': 'NEWER_FORMAT', child: 'NEWER_FORMAT' },
    repair: { refused: 'NEWER_FORMAT' },
  },
  {
    golden: 'v1/whole',
    what: 'a snapshot has a newer format',
    damage: (dir) =>
      change(join(dir, 'snapshots', idOf('v1/whole', 'base')), (bytes) => {
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
    what: 'a segment has a newer format', // it holds hints, and is done without
    damage: (dir) =>
      raise(join(dir, 'segments/00000011.seg'), (size) => ({ at: 8, from: 0, sumAt: size - 8 })),
    check: [['segments/00000011.seg', []]],
    repair: {},
  },
];

const contentsOf = (golden: string, tag: string): string[] =>
  goldenSnapshots(golden)
    .find((snapshot) => snapshot.tag === tag)!
    .regions.map((region) => `${region.name} ${region.sha256}`);

const shortOf = (contents: Record<string, Buffer>): string[] =>
  Object.entries(contents).map(([name, bytes]) => `${name} ${sha256(bytes)}`);

/** What each snapshot restores as: `whole`, or the code of the error. */
async function restoresOf(store: Store, golden: string): Promise<Record<string, string>> {
  const outcomes: Record<string, string> = {};
  for (const { id, tag } of goldenSnapshots(golden)) {
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

describe('a golden store that is damaged', () => {
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
    it(`${golden}: ${what}`, async function () {
      const dir = copyOfGolden(this, golden);
      damage?.(dir);
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
        assert.deepEqual(filesOf(dir), before, 'a repair that is refused changes nothing');
        return;
      }
      const { lost = [], gone = [], quarantine = [], healedChunks = 0 } = repair;
      const result = await Store.repair(dir);
      assert.deepEqual(rangesOf(golden, result.lost), lost);
      assert.equal(result.healedChunks, healedChunks);
      const there = existsSync(join(dir, 'quarantine')) ? readdirSync(join(dir, 'quarantine')) : [];
      assert.deepEqual(there.map((name) => tagOf(golden, name)).sort(), quarantine);
      const damaged = Object.fromEntries(lost.map(([tag]) => [tag, 'DAMAGED']));
      await using(dir, true, async (store) => {
        const left = goldenSnapshots(golden).filter(({ tag }) => !gone.includes(tag!));
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
        'a second repair says the same',
      );

      if (heals) await using(dir, true, (store) => save(store, { elsewhere: heals() }));
      // What is lost, and cannot be saved again, comes back with the packs of a backup, under their old names.
      else if (lost.length > 0 && damage)
        cpSync(join(GOLDEN_STORES, golden, 'packs'), join(dir, 'packs'), { recursive: true });
      else return;
      assert.deepEqual((await Store.repair(dir)).lost, []);
      await using(dir, true, async (store) => {
        assert.deepEqual(await restoresOf(store, golden), {});
        assert.deepEqual(await checkOf(store, golden, true), []);
      });
    });

  it('v1/repaired: is healed by a later save of the page and block that are lost', async function () {
    const dir = copyOfGolden(this, 'v1/repaired');
    // The block that is lost: of a machine with the same pages at the same addresses, which are found where they were.
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

  it('v1/no-index: after a repair gc takes what writes that were cut short left', async function () {
    const dir = copyOfGolden(this, 'v1/no-index');
    await Store.repair(dir);
    assert.ok(existsSync(join(dir, 'packs/00000063-0.pack')), 'repair cannot know whose it is');
    await using(dir, true, async (store) => {
      await store.gc({ dryRun: false });
      assert.deepEqual(readdirSync(join(dir, 'tags')).sort(), ['child', 'file', 'parent']);
      assert.ok(!existsSync(join(dir, 'packs/00000063-0.pack')));
      assert.deepEqual(await restoresOf(store, 'v1/no-index'), {});
      // The number of a pack that was seen is never given again.
      await save(store, { 'ram@0x0': noise(1, 1) });
      assert.ok(readdirSync(join(dir, 'packs')).some((name) => name > '00000063'));
    });
  });

  it('v1/whole: an index from a backup lies beside newer files, and repair finds them', async function () {
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
