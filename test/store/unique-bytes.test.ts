/** What deleting each snapshot would free, in one pass. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { dropScratch, newStore, noise, save, scratchDir } from './scratch.js';

describe('the unique bytes of all snapshots', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('are those that `show` finds for each (property)', async function () {
    this.timeout(60_000);
    // Pages by their seeds, so that snapshots share pages, blocks and whole manifests.
    const pages = fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 1100, size: 'max' });
    const snapshots = fc.array(fc.record({ pages, repeat: fc.boolean(), removed: fc.boolean() }), {
      minLength: 1,
      maxLength: 6,
    });
    const kinds = Array.from({ length: 13 }, (_, seed) => (seed === 0 ? Buffer.alloc(4096) : noise(seed, 1)));
    await fc.assert(
      fc.asyncProperty(snapshots, async (all) => {
        const { store } = newStore(this);
        const toRemove: string[] = [];
        for (const { pages: seeds, repeat, removed } of all) {
          const ram = Buffer.concat(seeds.map((seed) => kinds[seed]!));
          const { id } = await save(store, repeat ? { a: ram, b: ram } : { a: ram });
          if (removed) toRemove.push(id);
        }
        store.remove(toRemove);
        const unique = await store.uniqueBytesOfAll();
        const expected = store.list().map(({ id }) => [id, store.show(id).uniqueBytes] as const);
        assert.deepEqual([...unique].sort(), [...expected].sort());
        store.close();
      }),
      { numRuns: 25 },
    );
  });

  it('are what gc then frees', async function () {
    const { store } = newStore(this);
    const common = noise(1, 600);
    await save(store, { ram: common });
    const { id } = await save(store, { ram: Buffer.concat([common, noise(2, 700)]) });
    const unique = (await store.uniqueBytesOfAll()).get(id)!;
    const before = store.stats().storedBytes;
    store.remove([id]);
    await store.gc({ dryRun: false });
    assert(Math.abs(before - store.stats().storedBytes - unique) < 4096, 'apart from a rewritten pack');
  });

  it('are unknown of a damaged snapshot alone', async function () {
    const { store, dir } = newStore(this);
    const whole = await save(store, { ram: noise(1, 100) });
    const broken = await save(store, { ram: noise(2, 100) });
    writeFileSync(join(dir, 'snapshots', broken.id), 'damage');
    const unique = await store.uniqueBytesOfAll();
    assert.equal(unique.get(broken.id), null);
    assert(unique.get(whole.id)! > 100 * 4096);
  });

  it('can be cancelled', async function () {
    const { store } = newStore(this);
    await save(store, { ram: noise(1, 1) });
    assert(scratchDir(this));
    await assert.rejects(store.uniqueBytesOfAll(AbortSignal.abort(new Error('enough'))), /enough/);
  });
});
