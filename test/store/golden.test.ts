/**
 * Stores of each released format version, as users have them, are read as they were written: by the store, by the
 * second reader, after gc, after repair, from a read-only medium. A file beside each store lists what must be in it. If a test
 * here is red, users can no longer read their stores: fix the code, never the test or the stores.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { exportSnapshot, importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import type { LostRange } from '../../src/store/types.js';
import {
  copyOfGolden,
  filesOf,
  type GoldenSnapshot,
  goldenSnapshots,
  sha256,
} from '../fixtures/golden-stores.js';
import { Database } from '../sqlite.js';
import { IndependentReader, type Place } from './independent-reader.js';
import { readSegment, segmentsOf } from './independent-segments.js';
import {
  basedOn,
  dropScratch,
  load,
  MemorySource,
  machineMetadata,
  mountReadOnly,
  noise,
  save,
  scratchDir,
} from './scratch.js';

const PAGE = 4096;
const Flag = { compressed: 1, manifest: 2, lost: 4 };
const quiet = { onPlan: () => {}, progress: () => {} };

/** The losses that an earlier repair found in a golden store, by tag. */
type Lost = Record<string, readonly (readonly [region: string, fromPage: number, toPage: number])[]>;

/** Stores that open without a repair. */
const SOUND: Record<string, Lost> = {
  'v1/whole': {},
  'v1/filtered': {},
  'v1/recompressed': {},
  'v1/disks': {},
  'v1/several-tags': {},
  'v1/labels': {},
  'v1/repaired': { holed: [['ram@0x0', 16, 32]], blind: [['ram@0x0', 0, 5]] },
  'v2/whole': {},
  'v2/recompressed': {},
  'v2/repaired': { holed: [['ram@0x0', 16, 32]], blind: [['ram@0x0', 0, 5]] },
  'v2/mixed': { holed: [['ram@0x0', 16, 20]] },
};

const summaryOf = (snapshot: GoldenSnapshot): unknown => {
  const { id, tags, kind, vm, parent, createdAt, memoryBytes, diskBytes, machine } = snapshot;
  const { labels = {}, pauseMs = null } = (machine ?? {}) as {
    labels?: Record<string, string>;
    pauseMs?: number;
  };
  return { id, tags, kind, vm, parent, createdAt, memoryBytes, diskBytes, labels, pauseMs };
};

const shortOf = (contents: Record<string, Buffer>): unknown =>
  Object.entries(contents).map(([name, bytes]) => ({ name, sizeBytes: bytes.length, sha256: sha256(bytes) }));

const shortOfRegions = ({ regions }: GoldenSnapshot): unknown =>
  regions.map(({ name, sizeBytes, sha256 }) => ({ name, sizeBytes, sha256 }));

const isLost = (lost: Lost, { tags }: GoldenSnapshot): boolean => tags.some((tag) => tag in lost);

function rangesOf(golden: string, lost: Lost): LostRange[] {
  return goldenSnapshots(golden).flatMap(({ id, tags }) =>
    (lost[tags[0] ?? ''] ?? []).map(([region, fromPage, toPage]) => ({
      ...{ snapshot: id, tags, region, fromBytes: fromPage * PAGE, toBytes: toPage * PAGE },
    })),
  );
}

const bySnapshot = (a: LostRange, b: LostRange): number => (a.snapshot < b.snapshot ? -1 : 1);

/** Requires everything about the snapshots of a golden store. There may be other snapshots, too. */
async function requireGolden(store: Store, golden: string, lost: Lost): Promise<void> {
  for (const expected of goldenSnapshots(golden)) {
    const { id, tags, regions, machine, host } = expected;
    for (const tag of tags) assert.equal(store.resolve(tag), id);
    const { storedBytes, ...summary } = store.find(id);
    assert.deepEqual(summary, summaryOf(expected));
    const snapshot = await store.openSnapshot(id);
    snapshot.close();
    assert.deepEqual([snapshot.metadata.machine, snapshot.metadata.host], [machine, host]);
    assert.equal(sha256(snapshot.metadata.state), expected.stateSha256);
    if (isLost(lost, expected)) await assert.rejects(load(store, id), { code: 'DAMAGED', message: /lost/ });
    else {
      assert.deepEqual(shortOf(await load(store, id)), shortOfRegions(expected));
      const details = store.show(id);
      assert.deepEqual(
        details.regions.map(({ changedPages: _, ...region }) => region),
        regions.map(({ name, sizeBytes, nonZeroPages }) => ({ name, sizeBytes, nonZeroPages })),
      );
      assert.ok(details.uniqueBytes > 0);
    }
  }
  await requireNoOtherDamage(store, golden, lost);
}

/** Requires that check names the snapshots with losses and finds nothing else. */
async function requireNoOtherDamage(store: Store, golden: string, lost: Lost): Promise<void> {
  for (const readData of [false, true]) {
    const { problems } = await store.check({ readData });
    assert.ok(problems.every(({ message }) => message === 'chunks were lost here'));
    const named = goldenSnapshots(golden).filter((snapshot) => isLost(lost, snapshot));
    assert.deepEqual(problems.flatMap(({ snapshots }) => snapshots).sort(), named.map(({ id }) => id).sort());
  }
}

const asideOf = (dir: string): string[] =>
  Object.keys(filesOf(dir)).filter((name) => name.startsWith('quarantine/'));

const idsOf = (golden: string): string[] => goldenSnapshots(golden).map(({ id }) => id);

async function using<T>(dir: string, work: (store: Store) => Promise<T>, write = true): Promise<T> {
  const store = Store.open(dir, { write });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}

for (const [golden, lost] of Object.entries(SOUND))
  describe(`the golden store ${golden}`, () => {
    afterEach(function () {
      dropScratch(this);
    });

    it('is read as it was written, and reading does not change it', async function () {
      const dir = copyOfGolden(this, golden);
      const before = filesOf(dir);
      await using(
        dir,
        async (store) => {
          assert.deepEqual(
            store.list().map(({ id }) => id),
            idsOf(golden),
          );
          await requireGolden(store, golden, lost);
        },
        false,
      );
      assert.deepEqual(filesOf(dir), before);
    });

    it('is read from a read-only file system', async function () {
      const dir = copyOfGolden(this, golden);
      mountReadOnly(this, dir);
      await using(dir, (store) => requireGolden(store, golden, lost), false);
    });

    it('is read by the second reader, with its segments and index', function () {
      const dir = copyOfGolden(this, golden);
      const reader = new IndependentReader(dir);
      assert.deepEqual(reader.ids(), idsOf(golden).sort());
      const labels = reader.tags();
      for (const snapshot of goldenSnapshots(golden)) {
        const { id, tags, kind, vm, parent, createdAt, memoryBytes, diskBytes, machine, host } = snapshot;
        for (const tag of tags) assert.equal(labels[tag], id);
        if (isLost(lost, snapshot)) {
          assert.throws(() => reader.read(id), /was lost/);
          continue;
        }
        const { description, regions, state } = reader.read(id);
        const { packBytes, regions: described, ...rest } = description;
        assert.deepEqual(rest, {
          ...{ id, kind, vm, parent, createdAt, memoryBytes, diskBytes, machine, host },
        });
        assert.deepEqual(
          described,
          snapshot.regions.map(({ name, sizeBytes, nonZeroPages }) => ({ name, sizeBytes, nonZeroPages })),
        );
        assert.deepEqual(shortOf(regions), shortOfRegions(snapshot));
        assert.equal(sha256(state), snapshot.stateSha256);
      }
      for (const number of reader.packs()) {
        const pack = reader.pack(number);
        let first = 0;
        for (const { chunks, flags } of pack.frames) {
          for (const chunk of pack.numbers.slice(first, first + chunks))
            if ((flags & Flag.lost) === 0) pack.chunk(chunk);
            else assert.throws(() => pack.chunk(chunk), /was lost/);
          first += chunks;
        }
      }
      // The segments have one entry for each chunk of each pack, and no others.
      const listed = segmentsOf(dir).flatMap((number) => readSegment(dir, number));
      const there = reader.packs().flatMap((number) => {
        const { numbers, fingerprints } = reader.pack(number);
        return numbers.map((chunk, i) => ({ fingerprint: fingerprints[i]!, pack: number, chunk }));
      });
      const text = (entries: typeof listed): string[] =>
        entries.map(({ fingerprint, pack, chunk }) => `${fingerprint} ${pack} ${chunk}`).sort();
      assert.deepEqual(text(listed), text(there));
      requireIndex(dir, reader, golden);
    });

    it('is read after gc, and after a save and another gc', async function () {
      const dir = copyOfGolden(this, golden);
      const aside = asideOf(dir);
      await using(dir, async (store) => {
        await store.gc({ dryRun: false });
        await requireGolden(store, golden, lost);
        assert.deepEqual(asideOf(dir), aside, 'only the user deletes there');
        const { id } = await save(store, { 'ram@0x0': noise(99, 5) }, { tag: 'new' });
        assert.deepEqual(await load(store, id), { 'ram@0x0': noise(99, 5) });
        await store.gc({ dryRun: false });
        await requireGolden(store, golden, lost);
        await store.gc({ dryRun: false, recompress: true });
        await requireGolden(store, golden, lost);
        assert.deepEqual(asideOf(dir), aside, 'only the user deletes there');
      });
    });

    it('is read after a repair from packs, snapshots and tags alone', async function () {
      const dir = copyOfGolden(this, golden);
      const packs = readdirSync(join(dir, 'packs')).sort();
      rmSync(join(dir, 'store.db'));
      rmSync(join(dir, 'segments'), { recursive: true });
      const result = await Store.repair(dir);
      assert.deepEqual(result.lost.sort(bySnapshot), rangesOf(golden, lost).sort(bySnapshot));
      assert.equal(result.healedChunks, 0);
      assert.deepEqual(readdirSync(join(dir, 'packs')).sort(), packs, 'there was nothing to do to the packs');
      await using(dir, async (store) => {
        assert.deepEqual(
          store.list().map(({ id }) => id),
          idsOf(golden),
        );
        await requireGolden(store, golden, lost);
      });
    });

    it('is a source of copies and exports', async function () {
      const dir = copyOfGolden(this, golden);
      const into = join(scratchDir(this), 'into');
      for (const snapshot of goldenSnapshots(golden)) {
        const to = join(scratchDir(this), 'exported');
        const request = { storeDir: dir, ref: snapshot.id, to, ...quiet };
        if (isLost(lost, snapshot)) {
          await assert.rejects(exportSnapshot(request), { code: 'DAMAGED' });
          assert.ok(!existsSync(to));
          continue;
        }
        await exportSnapshot(request);
        await importSnapshots({ storeDir: into, from: to, ...quiet });
        for (const copy of [to, into])
          await using(copy, async (store) =>
            assert.deepEqual(shortOf(await load(store, snapshot.id)), shortOfRegions(snapshot)),
          );
      }
      // The directory as a whole is imported, too.
      if (Object.keys(lost).length > 0) return;
      const other = join(scratchDir(this), 'other');
      await importSnapshots({ storeDir: other, from: dir, ...quiet });
      await using(other, (store) => requireGolden(store, golden, lost));
    });

    it('is a base for saves, which find its chunks and use its snapshots as parents', async function () {
      const dir = copyOfGolden(this, golden);
      await using(dir, async (store) => {
        for (const snapshot of goldenSnapshots(golden)) {
          if (isLost(lost, snapshot)) continue;
          const { id, regions } = snapshot;
          const contents = await load(store, id);
          const again = await save(store, contents);
          assert.deepEqual([again.parent, again.newChunks], [null, 0], `${snapshot.tags}`);
          const only = Object.fromEntries(regions.map(({ name }) => [name, [] as number[]]));
          const session = await store.beginSave({ regions: basedOn(id, Object.keys(only)) });
          assert.equal(session.parent, id);
          await session.store(new MemorySource(contents, only));
          const child = await session.commit(machineMetadata());
          assert.equal(child.newChunks, 0);
          assert.deepEqual(await load(store, child.id), contents);
        }
        await requireGolden(store, golden, lost);
      });
    });
  });

/** Compares the rows of the index with the files, by docs/format.md. */
function requireIndex(dir: string, reader: IndependentReader, golden: string): void {
  const database = new Database(join(dir, 'store.db'));
  try {
    const rows = (sql: string): Record<string, unknown>[] => database.prepare(sql).all() as never;
    assert.equal(database.pragma('application_id', { simple: true }), 0x4c56534e);
    // What has been opened for writing since has the schema of today.
    const version = database.pragma('user_version', { simple: true }) as number;
    assert.ok(version >= 1 && version <= 4);
    assert.equal(database.pragma('journal_mode', { simple: true }), 'wal');
    const packs = readdirSync(join(dir, 'packs'))
      .sort()
      .map((name) => {
        const number = Number.parseInt(name.slice(0, 8), 16);
        const sizeBytes = readFileSync(join(dir, 'packs', name)).length;
        return {
          number,
          generation: Number(name.slice(9, -5)),
          chunks: reader.pack(number).numbers.length,
          sizeBytes,
        };
      });
    assert.deepEqual(rows('SELECT number, generation, chunks, sizeBytes FROM packs ORDER BY number'), packs);
    const segments = segmentsOf(dir).map((number) => ({ number, entries: readSegment(dir, number).length }));
    assert.deepEqual(rows('SELECT number, entries FROM segments ORDER BY number'), segments);
    for (const { number } of [...packs, ...segments])
      assert.ok((rows('SELECT name, value FROM counters')[0]!.value as number) > number);
    const there = new Set(reader.ids());
    const tags = Object.entries(reader.tags())
      .filter(([, snapshot]) => there.has(snapshot))
      .map(([label, snapshot]) => ({
        ...{ label, snapshot, digest: sha256(Buffer.from(`${label} ${snapshot}`)).slice(0, 16) },
      }))
      .sort((a, b) => (a.label < b.label ? -1 : 1));
    assert.deepEqual(rows('SELECT label, snapshot, digest FROM tags ORDER BY label'), tags);
    for (const row of rows('SELECT * FROM snapshots')) {
      const { description, sizeBytes: fileBytes } = reader.snapshot(row.id as string);
      const { id, kind, vm, parent, createdAt, memoryBytes, diskBytes, packBytes, regions } = description;
      const total = (values: number[]): number => values.reduce((sum, value) => sum + value, 0);
      const { labels = {}, pauseMs = null } = (description.machine ?? {}) as {
        labels?: Record<string, string>;
        pauseMs?: number;
      };
      const listed = JSON.stringify(
        Object.fromEntries(Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))),
      );
      // An index of an earlier livesnap has no labels, and a writer fills them in later.
      if (row.labels === undefined || (row.labels === null && !golden.endsWith('/labels'))) delete row.labels;
      assert.deepEqual(row, {
        ...{ id, kind, vm, parent, createdAt, memoryBytes, diskBytes },
        storedBytes: (packBytes as number) + fileBytes,
        logicalBytes: total(regions.map(({ sizeBytes }) => sizeBytes)),
        nonZeroPages: total(regions.map(({ nonZeroPages }) => nonZeroPages)),
        ...(row.labels === undefined ? {} : { labels: listed }),
        ...('pauseMs' in row ? { pauseMs } : {}),
      });
    }
  } finally {
    database.close();
  }
}

const textOf = ({ pack, chunk }: Place): string => `${pack} ${chunk}`;

/** The places of a block; none if the block is lost. */
function pagesOf(reader: IndependentReader, entry: Parameters<IndependentReader['placesOf']>[0]): Place[] {
  try {
    return reader.placesOf(entry);
  } catch (error) {
    assert.match((error as Error).message, /was lost/);
    return [];
  }
}

describe('the golden stores', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('together have every feature of the format', function () {
    const found = new Set<string>();
    for (const golden of Object.keys(SOUND)) {
      const dir = copyOfGolden(this, golden);
      const reader = new IndependentReader(dir);
      const needed = new Set<string>();
      const ids = new Set(reader.ids());
      for (const id of ids) {
        const { description, blocks } = reader.snapshot(id);
        const { regions, kind, parent } = description;
        if (regions.length > 1) found.add(`a ${kind} with several regions`);
        if (regions.some(({ sizeBytes }) => sizeBytes === 0)) found.add(`an empty ${kind}`);
        if (regions.some(({ sizeBytes }) => sizeBytes % PAGE !== 0)) found.add(`a ${kind} with a short page`);
        if (regions.some(({ sizeBytes, nonZeroPages }) => sizeBytes > 0 && nonZeroPages === 0))
          found.add('a region that is all zero');
        if (blocks.some(({ block }, i) => block > 1 && blocks[i - 1]?.block === block - 2))
          found.add('a block that is all zero');
        if (typeof parent === 'string')
          found.add(ids.has(parent) ? 'a parent that exists' : 'a parent that was removed');
        for (const entry of blocks) {
          if (needed.has(textOf(entry.places))) found.add('a block that snapshots share');
          for (const place of [entry.places, entry.fingerprints, ...pagesOf(reader, entry)])
            needed.add(textOf(place));
        }
      }
      const identities = new Map<bigint, Buffer[]>();
      for (const number of reader.packs()) {
        const { digest, effort, frames, generation, numbers, fingerprints, digests } = reader.pack(number);
        found.add(`digests of ID ${digest}`);
        if (effort === 1) found.add('a recompressed pack');
        for (const { flags, chunks } of frames) {
          if ((flags & (Flag.lost | Flag.compressed)) === 0) found.add('an uncompressed frame');
          if ((flags & Flag.compressed) !== 0) found.add('a compressed frame');
          if ((flags & Flag.manifest) !== 0) found.add('a frame of manifest blocks');
          if ((flags & Flag.lost) !== 0)
            found.add(`a lost ${(flags & Flag.manifest) === 0 ? 'page' : 'block'}`);
          if (chunks === 16) found.add('a full frame');
        }
        if (generation > 0 && numbers.some((number, i) => i > 0 && number > numbers[i - 1]! + 1))
          found.add('a later generation with gaps');
        if (numbers.some((chunk) => !needed.has(textOf({ pack: number, chunk })))) found.add('a dead chunk');
        fingerprints.forEach((fingerprint, i) => {
          const others = identities.get(fingerprint) ?? [];
          if (others.some((digest) => !digest.equals(digests[i]!))) found.add('a collision');
          identities.set(fingerprint, [...others, digests[i]!]);
        });
      }
      if (segmentsOf(reader.dir).length > 1) found.add('several segments');
      for (const number of segmentsOf(reader.dir)) {
        const entries = readSegment(reader.dir, number);
        if (new Set(entries.map(({ pack }) => pack)).size > 1) found.add('a merged segment');
        if (entries.length >= 512) found.add('a segment with a filter');
      }
      if (existsSync(join(dir, 'quarantine'))) found.add('quarantine');
      const tagged = Object.values(reader.tags());
      if (tagged.some((id) => !ids.has(id))) found.add('a tag of a removed snapshot');
      if (new Set(tagged).size < tagged.length) found.add('a snapshot with several tags');
    }
    assert.deepEqual([...found].sort(), [
      'a block that is all zero',
      'a block that snapshots share',
      'a collision',
      'a compressed frame',
      'a dead chunk',
      'a disk with a short page',
      'a disk with several regions',
      'a file with a short page',
      'a frame of manifest blocks',
      'a full frame',
      'a later generation with gaps',
      'a lost block',
      'a lost page',
      'a machine with several regions',
      'a merged segment',
      'a parent that exists',
      'a parent that was removed',
      'a recompressed pack',
      'a region that is all zero',
      'a segment with a filter',
      'a snapshot with several tags',
      'a tag of a removed snapshot',
      'an empty file',
      'an uncompressed frame',
      'digests of ID 0',
      'digests of ID 1',
      'quarantine',
      'several segments',
    ]);
  });
});
