/**
 * A repair whose system calls fail (a full or broken disk). It reports the right code and leaves nothing unfinished.
 * The next repair has the result that this one would have had.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LivesnapError } from '../../src/errors.js';
import { pageOps } from '../../src/native/pages.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { PackWriter } from '../../src/store/pack/pack-writer.js';
import { Store } from '../../src/store/store.js';
import type { RepairResult } from '../../src/store/types.js';
import { Database } from '../sqlite.js';
import { dropScratch, load, mountSmall, newStore, noise, save, scratchDir } from '../store/scratch.js';
import { type Fault, watchedEnvironment } from './trace.js';

const child = fileURLToPath(new URL('../store/verbs-child.js', import.meta.url));

const filesIn = (dir: string, folder: string): string[] =>
  existsSync(join(dir, folder)) ? readdirSync(join(dir, folder)).sort() : [];

function flipFrame(dir: string, name: string, index: number): void {
  const reader = new PackReader(pageOps, dir, parsePackName(name)!);
  reader.close();
  const path = join(dir, 'packs', name);
  const bytes = readFileSync(path);
  bytes[reader.frames.at(index).offset + 60]! ^= 1;
  writeFileSync(path, bytes);
}

/** The listed generation of each pack, by number. */
function generationsListed(dir: string): Map<number, number> {
  if (!existsSync(join(dir, 'store.db'))) return new Map();
  const database = new Database(join(dir, 'store.db'));
  const rows = database.prepare('SELECT number, generation FROM packs').raw().all();
  database.close();
  return new Map(rows as [number, number][]);
}

/** A store with work for every step of repair: salvage, heal, list missing chunks, set aside. */
async function makeDamaged(test: Mocha.Context): Promise<string> {
  const { store, dir } = newStore(test);
  await save(store, { 'ram@0x0': noise(1, 60) }, { tag: 'a' });
  await save(store, { 'ram@0x0': noise(2, 60) }, { tag: 'b' });
  const c = await save(store, { 'ram@0x0': noise(3, 20) }, { tag: 'c' });
  await save(store, { 'ram@0x0': noise(4, 20) }, { tag: 'd' });
  await save(store, { 'ram@0x0': noise(5, 20) }, { tag: 'e' });
  store.close();
  const packs = filesIn(dir, 'packs');
  flipFrame(dir, packs[0]!, 1);
  flipFrame(dir, packs[1]!, 0);
  rmSync(join(dir, 'packs', packs[3]!));
  const path = join(dir, 'snapshots', c.id);
  writeFileSync(path, readFileSync(path).subarray(1));
  mkdirSync(join(dir, 'packs/000000ee-0.pack'));
  return dir;
}

interface Repaired {
  readonly value?: RepairResult;
  readonly code?: string;
  readonly message?: string;
}

function repairUnder(dir: string, fault: Fault): Repaired {
  const env = watchedEnvironment(dir, { fault });
  return JSON.parse(execFileSync(process.execPath, [child, dir, 'repair'], { env, encoding: 'utf8' }));
}

/** The contents of a store after a repair. */
async function stateOf(dir: string): Promise<unknown> {
  const store = Store.open(dir, { write: true });
  try {
    const contents: unknown[] = [];
    for (const { id, tags } of store.list())
      contents.push([id, tags, await load(store, id).catch((error: LivesnapError) => error.code)]);
    const { problems } = await store.check({ readData: true });
    return {
      contents,
      problems: problems.map((problem) => JSON.stringify(problem)).sort(),
      packs: filesIn(dir, 'packs'),
      quarantine: filesIn(dir, 'quarantine'),
    };
  } finally {
    store.close();
  }
}

/** Kills a repair of a copy of the store after each of its renames in turn. Returns the number of renames. */
async function killAfterEachRename(
  test: Mocha.Context,
  dir: string,
  look: (half: string, where: string) => Promise<void>,
): Promise<number> {
  let killed = 0;
  for (let nth = 1; killed === nth - 1; nth++) {
    const half = join(scratchDir(test), 'half');
    cpSync(dir, half, { recursive: true });
    const env = watchedEnvironment(half, { fault: { classes: 'r', nth, action: 'after', always: false } });
    try {
      execFileSync(process.execPath, [child, half, 'repair'], { env, stdio: 'pipe' });
    } catch {
      killed++;
    }
    await look(half, `after rename ${nth}`);
  }
  return killed;
}

async function requireLoads(dir: string, contents: Record<string, Buffer>, where: string): Promise<void> {
  const store = Store.open(dir, { write: true });
  assert.deepEqual(await load(store, 'a'), contents, where);
  store.close();
}

describe('a failed or killed repair', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [what, fault, code, step] of [
    ['on a full disk', { classes: 'wc', action: 'ENOSPC', always: true }, 'NO_SPACE', 7],
    ['on a broken disk', { classes: 'wsdrc', action: 'EIO', always: false }, 'SYSTEM', 6],
  ] as const)
    it(`${what} leaves nothing unfinished, and the next one has the same result`, async function () {
      this.timeout(600_000);
      const damaged = await makeDamaged(this);
      const scratch = scratchDir(this);
      const clean = join(scratch, 'clean');
      cpSync(damaged, clean, { recursive: true });
      const { lost } = await Store.repair(clean);
      const expected = await stateOf(clean);
      let failed = 0;
      // Some calls may fail without harm. Several such calls in a row mean that there are no more calls.
      for (let nth = 1, harmless = 0; harmless < 4; nth += step) {
        const dir = join(scratch, String(nth));
        cpSync(damaged, dir, { recursive: true });
        const before = new Set(filesIn(dir, 'packs'));
        const segments = filesIn(dir, 'segments');
        const { value, code: got, message } = repairUnder(dir, { ...fault, nth });
        const where = `${fault.action} at call ${nth}: ${message}`;
        harmless = value === undefined ? 0 : harmless + 1;
        if (value === undefined) {
          failed++;
          // SQLite does not report why it could not create a file or change its size.
          if (!/disk I\/O error|unable to open/.test(message!)) assert.equal(got, code, where);
          else assert.equal(got, 'SYSTEM', where);
          assert.deepEqual(
            readdirSync(dir).filter((name) => name.startsWith('store.db.new')),
            [],
            where,
          );
          // A call that fails once may be the last one in replacing the index.
          if (fault.always) assert.deepEqual(filesIn(dir, 'segments'), segments, where);
          // New packs that the index does not list were deleted.
          const listed = generationsListed(dir);
          const packs = filesIn(dir, 'packs').map((name) => parsePackName(name)!);
          for (const { number, generation } of packs) {
            const name = `${number.toString(16).padStart(8, '0')}-${generation}.pack`;
            if (!before.has(name) && listed.get(number) !== generation)
              assert.ok(packs.filter((one) => one.number === number).length === 1, `${where}: ${name}`);
          }
        }
        const again = await Store.repair(dir);
        assert.deepEqual(again.lost, lost, where);
        assert.deepEqual(await stateOf(dir), expected, where);
        rmSync(dir, { recursive: true });
      }
      console.log(`        ${failed} failures`);
      assert.ok(failed > 5);
    });

  it('that was killed between two renames has removed no chunk that other generations lack', async function () {
    this.timeout(300_000);
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 60) };
    await save(store, contents, { tag: 'a' });
    store.close();
    const [name] = filesIn(dir, 'packs') as [string];
    const { number } = parsePackName(name)!;
    // An intact generation that lacks needed chunks.
    const writer = new PackWriter(pageOps, dir, number, 1);
    for (let i = 0; i < 30; i++) {
      const page = noise(1, 60).subarray(i * 4096, (i + 1) * 4096);
      const fingerprint = new Uint8Array(8);
      pageOps.hashPages(page, 1, fingerprint);
      writer.append(page, 0, fingerprint, false);
    }
    writer.seal();
    writer.close();
    flipFrame(dir, name, 0);
    const clean = join(scratchDir(this), 'clean');
    cpSync(dir, clean, { recursive: true });
    assert.deepEqual((await Store.repair(clean)).lost, []);
    const killed = await killAfterEachRename(this, dir, async (half, where) => {
      assert.deepEqual((await Store.repair(half)).lost, [], where);
      await requireLoads(half, contents, where);
    });
    assert.ok(killed >= 4, `${killed} renames`);
  });

  it('that was killed leaves no needed file that gc would delete', async function () {
    this.timeout(300_000);
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 60) };
    await save(store, contents, { tag: 'a' });
    store.close();
    const [name] = filesIn(dir, 'packs') as [string];
    // All chunks can be read from its frames.
    const path = join(dir, 'packs', name);
    const bytes = readFileSync(path);
    bytes[20]! ^= 1;
    writeFileSync(path, bytes);
    const old = join(scratchDir(this), 'store.db');
    cpSync(join(dir, 'store.db'), old);
    const gcThenRepair = async (half: string, where: string): Promise<void> => {
      if (existsSync(join(half, 'store.db'))) {
        const meanwhile = Store.open(half, { write: true });
        await meanwhile.gc({ dryRun: false }).catch((error: LivesnapError) => {
          assert.equal(error.code, 'DAMAGED', where);
        });
        meanwhile.close();
      }
      assert.deepEqual((await Store.repair(half)).lost, [], where);
      await requireLoads(half, contents, where);
    };
    const killed = await killAfterEachRename(this, dir, gcThenRepair);
    assert.ok(killed >= 3, `${killed} renames`);
    // The same holds when the old index is put back.
    await Store.repair(dir);
    cpSync(old, join(dir, 'store.db'));
    await gcThenRepair(dir, 'with the old index');
  });

  it('on a full disk tells what to free, frees what it used, and works once there is space', async function () {
    const disk = scratchDir(this);
    mountSmall(this, disk, 12 << 20);
    const dir = join(disk, 'store');
    const store = Store.open(dir, { write: true, create: true });
    for (const seed of [1, 2]) await save(store, { 'ram@0x0': noise(seed, 700) }, { tag: `t${seed}` });
    store.close();
    for (const name of filesIn(dir, 'packs')) flipFrame(dir, name, 3);
    const { bavail, bsize } = statfsSync(disk);
    // Leaves space for the next generation of one pack only.
    writeFileSync(join(disk, 'filler'), Buffer.alloc(bavail * bsize - (4 << 20), 1));
    const free = statfsSync(disk).bavail;
    for (let run = 0; run < 3; run++) {
      await assert.rejects(Store.repair(dir), (error: LivesnapError) => {
        assert.equal(error.code, 'NO_SPACE');
        assert.match(error.hint!, /quarantine/);
        return true;
      });
      assert.equal(statfsSync(disk).bavail, free);
    }
    rmSync(join(disk, 'filler'));
    const { lost } = await Store.repair(dir);
    assert.equal(lost.length, 2);
    // The index can be rebuilt without a free byte.
    const rest = statfsSync(disk);
    writeFileSync(join(disk, 'filler'), Buffer.alloc(rest.bavail * rest.bsize, 1));
    assert.deepEqual((await Store.repair(dir)).lost, lost);
  });
});
