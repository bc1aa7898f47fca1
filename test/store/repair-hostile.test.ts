/**
 * Repair of stores with hostile files, or with damage everywhere. It always makes an index that opens, and a second
 * repair finds nothing to do. LIVESNAP_SEED repeats the random part.
 */
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { type BlockEntry, BlockList } from '../../src/store/snapshot/block-list.js';
import { readSnapshotFile, writeSnapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import type { RepairResult } from '../../src/store/types.js';
import { dropScratch, load, newStore, noise, save, seeded } from './scratch.js';

const SEED = Number(process.env.LIVESNAP_SEED ?? randomInt(2 ** 32));

const filesIn = (dir: string, folder: string): string[] => readdirSync(join(dir, folder)).sort();

/** Flips a bit in every frame of a pack and in its list of identities: nothing of the pack is left. */
function scramble(dir: string, name: string): void {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  reader.close();
  const path = join(dir, 'packs', name);
  const bytes = readFileSync(path);
  for (const { offset } of reader.frames) bytes[offset + 20]! ^= 1;
  const { trailerOffset, frames, chunks } = reader.footer;
  bytes[trailerOffset + frames * 16 + chunks * 4 + 3]! ^= 1;
  writeFileSync(path, bytes);
}

/** Writes a snapshot whose digest holds but whose contents no livesnap writes. */
function forge(
  dir: string,
  from: string,
  id: string,
  change: (snapshot: {
    regions: Record<string, unknown>[];
    blocks: BlockEntry[];
    places: { pack: number; chunk: number };
  }) => void,
): void {
  const { description, blocks, state } = readSnapshotFile(dir, from);
  const changed = structuredClone({ ...description, id }) as typeof description;
  const changedBlocks = structuredClone([...blocks]);
  change({
    regions: changed.regions as unknown as Record<string, unknown>[],
    blocks: changedBlocks,
    places: changedBlocks[0]!.places as { pack: number; chunk: number },
  });
  const list = new BlockList();
  for (const entry of changedBlocks) list.push(entry);
  closeSync(writeSnapshotFile(dir, changed, list, state).fd);
}

/** Repairs twice. Each time the index must open, and restores, check, saves and gc must work. */
async function repairTwice(dir: string, where: string): Promise<RepairResult> {
  let first: RepairResult | undefined;
  for (const run of [1, 2]) {
    const result = await Store.repair(dir).catch((error) => {
      throw new Error(`repair ${run} of ${where}: ${error.stack}`);
    });
    first ??= result;
    assert.deepEqual(result.lost, first.lost, where);
    if (run === 2)
      assert.ok(
        result.actions.every((action) => !action.includes('quarantine')),
        `${where}: ${result.actions.join(' ')}`,
      );
    const left = readdirSync(dir).filter((name) => /^store\.db\./.test(name));
    assert.deepEqual(left, [], where);
    const store = Store.open(dir, { write: true });
    try {
      const named = new Set(result.lost.map(({ snapshot }) => snapshot));
      for (const { id } of store.list())
        if (named.has(id)) await assert.rejects(load(store, id), { code: 'DAMAGED' }, where);
        else await load(store, id);
      const { problems } = await store.check({ readData: true });
      assert.deepEqual(
        [...new Set(problems.flatMap(({ snapshots }) => snapshots))].sort(),
        [...named].sort(),
        `${where}: ${JSON.stringify(problems)}`,
      );
      assert.ok(
        problems.every(({ file }) => file !== 'store.db'),
        `${where}: ${JSON.stringify(problems)}`,
      );
    } finally {
      store.close();
    }
  }
  const store = Store.open(dir, { write: true });
  try {
    const contents = { 'ram@0x0': noise(99, 20) };
    const { id } = await save(store, contents);
    await store.gc({ dryRun: false });
    assert.deepEqual(await load(store, id), contents, where);
  } finally {
    store.close();
  }
  return first!;
}

interface Made {
  readonly dir: string;
  readonly id: string;
  /** The pack of the kept snapshot. */
  readonly kept: string;
  /** The pack of a removed snapshot. */
  readonly dead: string;
}

async function make(test: Mocha.Context): Promise<Made> {
  const { store, dir } = newStore(test);
  const { id } = await save(store, { 'ram@0x0': noise(1, 40) }, { tag: 'kept' });
  const gone = await save(store, { 'ram@0x0': noise(2, 20) });
  store.remove([gone.id]);
  store.close();
  const [kept, dead] = filesIn(dir, 'packs') as [string, string];
  return { dir, id, kept, dead };
}

async function requireKept({ dir, id }: Made): Promise<void> {
  const store = Store.open(dir, { write: true });
  assert.deepEqual(await load(store, id), { 'ram@0x0': noise(1, 40) });
  assert.equal(store.resolve('kept'), id);
  store.close();
}

/** Hostile files in a store, by a name for the test. */
const HOSTILE: Record<string, (made: Made) => void> = {
  'a file named as the pack of the highest number': ({ dir }) =>
    writeFileSync(join(dir, 'packs/ffffffff-0.pack'), 'no pack'),
  'a pack copied to the highest number': ({ dir, kept }) =>
    copyFileSync(join(dir, 'packs', kept), join(dir, 'packs/ffffffff-0.pack')),
  'an empty file named as a pack of a high number': ({ dir }) =>
    writeFileSync(join(dir, 'packs/fffffffe-0.pack'), ''),
  'a file named as a pack of a high number, without its contents': ({ dir }) =>
    writeFileSync(join(dir, 'packs/80000001-0.pack'), 'no pack'),
  'a pack copied to number 0': ({ dir, kept }) =>
    copyFileSync(join(dir, 'packs', kept), join(dir, 'packs/00000000-0.pack')),
  'an intact pack of the highest number': ({ dir }) => sealed(dir, 0xffffffff, 0, 3),
  'an intact pack of number 0': ({ dir }) => sealed(dir, 0, 0, 3),
  'a pack copied to the last generation': ({ dir, kept }) =>
    copyFileSync(join(dir, 'packs', kept), join(dir, 'packs', kept.replace('-0.', '-999999999.'))),
  'a damaged pack beside a copy named as its last generation': ({ dir, kept }) => {
    const path = join(dir, 'packs', kept);
    copyFileSync(path, path.replace('-0.', '-999999999.'));
    const bytes = readFileSync(path);
    bytes[5]! ^= 1;
    writeFileSync(path, bytes);
  },
  'a pack without chunks': ({ dir }) => sealed(dir, 0x77, 0, 0),
  'a pack without chunks below another generation': ({ dir }) => {
    sealed(dir, 0x78, 0, 0);
    sealed(dir, 0x78, 1, 3);
  },
  'an unreferenced pack of which nothing is left': ({ dir, dead }) => scramble(dir, dead),
  'a file named as the segment of the highest number': ({ dir }) =>
    writeFileSync(join(dir, 'segments/ffffffff.seg'), 'none'),
  'a file named as segment 0': ({ dir }) => writeFileSync(join(dir, 'segments/00000000.seg'), 'none'),
  'a file in quarantine/ named as the pack of the highest number': ({ dir }) => {
    mkdirSync(join(dir, 'quarantine'), { recursive: true });
    writeFileSync(join(dir, 'quarantine/ffffffff-0.pack'), 'none');
    writeFileSync(join(dir, 'quarantine/00000099-999999999.pack.3'), 'none');
  },
  'a snapshot with its manifest in the pack of the highest number': ({ dir, id }) =>
    forge(dir, id, 'a'.repeat(32), ({ places }) => {
      places.pack = 0xffffffff;
    }),
  'a snapshot with its manifest in an impossible chunk': ({ dir, id }) =>
    forge(dir, id, 'b'.repeat(32), ({ places }) => {
      places.chunk = 0xffffffff;
    }),
  'a snapshot with its manifest in a missing pack': ({ dir, id }) =>
    forge(dir, id, 'c'.repeat(32), ({ places }) => {
      places.pack = 0x7777;
    }),
  'a snapshot with a page instead of its manifest': ({ dir, id }) =>
    forge(dir, id, 'd'.repeat(32), ({ places }) => {
      places.chunk = 0;
    }),
  'a snapshot with a page in the pack of the highest number': ({ dir, id }) => {
    const chunks = Buffer.alloc(8192);
    chunks.write('12345678');
    chunks.writeUInt32LE(0xffffffff, 4096);
    const digest = sealedOf(dir, 0x55, 0, chunks)[0]!;
    forge(dir, id, '9'.repeat(32), ({ blocks }) => {
      blocks[0] = {
        ...blocks[0]!,
        digest,
        fingerprints: { pack: 0x55, chunk: 0 },
        places: { pack: 0x55, chunk: 1 },
        nonZeroPages: 1,
      };
    });
  },
  'a snapshot with a negative count of pages': ({ dir, id }) =>
    forge(dir, id, 'e'.repeat(32), ({ regions }) => {
      regions[0]!.nonZeroPages = -1;
    }),
  'a snapshot without a count of its pages': ({ dir, id }) =>
    forge(dir, id, 'f'.repeat(32), ({ regions }) => {
      delete regions[0]!.nonZeroPages;
    }),
};

/** Writes an intact pack of random pages. */
const sealed = (dir: string, number: number, generation: number, chunks: number): void =>
  void sealedOf(dir, number, generation, noise(number & 0xffff, chunks));

/** Writes an intact pack. Returns the fingerprints of its pages. */
function sealedOf(dir: string, number: number, generation: number, pages: Buffer): bigint[] {
  const writer = new PackWriter(pageOps, dir, number, generation);
  const fingerprints: bigint[] = [];
  for (let offset = 0; offset < pages.length; offset += 4096) {
    const fingerprint = Buffer.alloc(8);
    pageOps.hashPages(pages.subarray(offset, offset + 4096), 1, fingerprint);
    writer.append(pages, offset, fingerprint, false);
    fingerprints.push(fingerprint.readBigUInt64LE());
  }
  writer.seal();
  writer.close();
  return fingerprints;
}

describe(`repair of a hostile store (seed ${SEED})`, () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [what, put] of Object.entries(HOSTILE))
    it(`copes with ${what}, and keeps the rest`, async function () {
      const made = await make(this);
      put(made);
      await repairTwice(made.dir, what);
      await requireKept(made);
    });

  it('copes with several of them at once, and with flipped bits anywhere', async function () {
    this.timeout(300_000);
    const made = await make(this);
    const original = `${made.dir}.original`;
    cpSync(made.dir, original, { recursive: true });
    const next = seeded(SEED);
    const kinds = Object.keys(HOSTILE);
    for (let round = 0; round < 25; round++) {
      rmSync(made.dir, { recursive: true });
      cpSync(original, made.dir, { recursive: true });
      const chosen = new Set(Array.from({ length: 1 + (next() % 3) }, () => kinds[next() % kinds.length]!));
      // These two write the same file.
      if (chosen.has('a damaged pack beside a copy named as its last generation'))
        chosen.delete('a pack copied to the last generation');
      const done: string[] = [];
      for (const kind of chosen) {
        try {
          HOSTILE[kind]!(made);
          done.push(kind);
        } catch {
          // Impossible after the change that another one made.
        }
      }
      for (let flips = next() % 4; flips > 0; flips--) {
        const folder = (['packs', 'snapshots', 'segments', 'tags'] as const)[next() % 4]!;
        const names = filesIn(made.dir, folder);
        const path = join(made.dir, folder, names[next() % names.length]!);
        const bytes = readFileSync(path);
        if (bytes.length === 0) continue;
        const offset = next() % bytes.length;
        bytes[offset]! ^= 1 << (next() & 7);
        writeFileSync(path, bytes);
        done.push(`${path} at ${offset}`);
      }
      await repairTwice(made.dir, `round ${round} of seed ${SEED}: ${done.join(', ')}`);
    }
  });
});
