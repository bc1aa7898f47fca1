/**
 * Flips single bits of a store: check reports each of them, and a restore never returns wrong bytes.
 *
 * LIVESNAP_FLIPS=all flips a bit in every byte of every file, which takes half an hour. The default is a seeded sample.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../../src/errors.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, newStore, noise, save, scratchDir, seeded, textPages } from './scratch.js';

const EXHAUSTIVE = process.env.LIVESNAP_FLIPS === 'all';
const SEED = Number(process.env.LIVESNAP_SEED ?? 20260101);

/** A store with everything that the format has: chains, rewritten packs, a file, tags. `answers`: see answersOf. */
async function build(test: Mocha.Context): Promise<{ dir: string; answers: unknown }> {
  const { store, dir } = newStore(test);
  const ram = Buffer.concat([textPages(1, 40), noise(2, 6), Buffer.alloc(600 * 4096), textPages(3, 20)]);
  const a = await save(store, { 'ram@0x0': ram, disk: textPages(4, 9) }, { tag: 'a' });
  noise(5, 2).copy(ram);
  await save(store, { 'ram@0x0': ram, disk: textPages(4, 9) }, { parent: a.id, tag: 'b' });
  const removed = await save(store, {
    other: Buffer.concat([textPages(6, 20), noise(2, 6), textPages(7, 30)]),
  });
  const path = join(scratchDir(test), 'file');
  writeFileSync(path, textPages(7, 30).subarray(0, 100_000));
  await store.put(path, { tags: ['file'], name: 'file' });
  store.remove([removed.id]);
  await store.gc({ dryRun: false });
  assert.ok(readdirSync(join(dir, 'packs')).some((name) => !name.endsWith('-0.pack')));
  store.close();
  return { dir, answers: await answersOf(dir) };
}

/** Everything that a store returns about itself and its snapshots. */
async function answersOf(dir: string): Promise<unknown> {
  const store = Store.open(dir, { write: false });
  try {
    const list = store.list();
    const contents: unknown[] = [];
    for (const { id, tags } of list) {
      for (const tag of tags) assert.equal(store.resolve(tag), id);
      contents.push(await load(store, id), store.show(id));
    }
    const { indexBytes, ratio, ...stats } = store.stats();
    return { list, contents, stats };
  } finally {
    store.close();
  }
}

/** Flips a bit in one of `share` bytes of a file, each in turn; yields the offset while the bit is flipped. */
function* flips(path: string, share: number, next: () => number): Generator<number> {
  const original = readFileSync(path);
  for (let offset = 0; offset < original.length; offset++) {
    if (!EXHAUSTIVE && next() % share !== 0) continue;
    const bytes = Buffer.from(original);
    bytes[offset]! ^= 1 << (next() & 7);
    writeFileSync(path, bytes);
    yield offset;
  }
  writeFileSync(path, original);
}

describe(`flipped bits (seed ${SEED})`, function () {
  this.timeout(EXHAUSTIVE ? 0 : 240_000);
  afterEach(function () {
    dropScratch(this);
  });

  for (const [folder, share] of [
    ['packs', 600],
    ['snapshots', 25],
    ['segments', 60],
  ] as const)
    it(`in ${folder} are reported by check, and no wrong byte is restored`, async function () {
      const { dir } = await build(this);
      const next = seeded(SEED);
      const truth = new Map<string, unknown>();
      const store = Store.open(dir, { write: true });
      for (const { id } of store.list()) truth.set(id, await load(store, id));
      let count = 0;
      for (const name of readdirSync(join(dir, folder))) {
        const file = `${folder}/${name}`;
        for (const offset of flips(join(dir, file), share, next)) {
          count++;
          const where = `${file} at ${offset}`;
          const { ok, problems } = await store.check({ readData: true });
          assert.equal(ok, false, where);
          assert.ok(
            problems.some((problem) => problem.file === file && (problem.offset ?? 0) <= offset),
            `${where}: ${JSON.stringify(problems)}`,
          );
          const named = new Set(problems.flatMap(({ snapshots }) => snapshots));
          for (const [id, contents] of truth) {
            try {
              assert.deepEqual(await load(store, id), contents);
            } catch (error) {
              assert.ok(error instanceof LivesnapError, `${where}: ${(error as Error).stack}`);
              assert.ok(['DAMAGED', 'NEWER_FORMAT'].includes(error.code), `${where}: ${error.message}`);
              assert.ok(named.has(id), `${where}: ${id} is damaged, but check does not name it`);
            }
          }
        }
      }
      console.log(`        ${count} flips in ${folder}`);
      assert.equal((await store.check({ readData: true })).ok, true);
      store.close();
    });

  it('in the index are reported if they change an answer', async function () {
    const { dir, answers } = await build(this);
    const path = join(dir, 'store.db');
    assert.equal(statSync(join(dir, 'store.db-wal'), { throwIfNoEntry: false }), undefined);
    const next = seeded(SEED);
    let found = 0;
    let harmless = 0;
    for (const offset of flips(path, 40, next)) {
      try {
        const store = Store.open(dir, { write: true });
        try {
          if (!(await store.check({ readData: false })).ok) {
            found++;
            continue;
          }
        } finally {
          store.close();
        }
        assert.deepEqual(await answersOf(dir), answers, `a flip at ${offset} of the index`);
        harmless++;
      } catch (error) {
        assert.ok(error instanceof LivesnapError, `a flip at ${offset}: ${(error as Error).stack}`);
        found++;
      }
    }
    console.log(`        ${found} flips in the index reported, ${harmless} change no answer`);
    assert.ok(found > 0);
  });
});
