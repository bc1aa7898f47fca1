/** Chains of incremental saves, whose pages would lie scattered over ever more frames. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../src/page-stream.js';
import type { Store } from '../../src/store/store.js';
import type { SaveResult } from '../../src/store/types.js';
import { dropScratch, load, newStore, noise, save, seeded } from './scratch.js';

const RAM = 'ram@0x0';
const PAGES = 2048;

interface Chain {
  readonly last: string;
  /** The bytes of some snapshots. */
  readonly kept: readonly { id: string; ram: Buffer }[];
  /** Of each incremental save: pages changed, new chunks and unchanged pages that it reports. */
  readonly counts: readonly { changed: number; result: SaveResult }[];
}

/** A full save and `saves` of 40 pages each. `before` is called before each. */
async function chain(store: Store, ram: Buffer, saves: number, before?: (n: number) => void): Promise<Chain> {
  const next = seeded(7);
  let last = (await save(store, { [RAM]: ram })).id;
  const kept: { id: string; ram: Buffer }[] = [];
  const counts: { changed: number; result: SaveResult }[] = [];
  for (let n = 1; n <= saves; n++) {
    before?.(n);
    const pages = [...new Set(Array.from({ length: 40 }, () => next() % PAGES))].sort((a, b) => a - b);
    for (const page of pages) ram.writeUInt32LE(n, page * PAGE_BYTES + 4 * (n % 1000));
    const result = await save(store, { [RAM]: ram }, { parent: last, only: { [RAM]: pages } });
    last = result.id;
    counts.push({ changed: pages.length, result });
    if (n % 40 === 0) kept.push({ id: last, ram: Buffer.from(ram) });
  }
  return { last, kept, counts };
}

describe('a chain of incremental saves', function () {
  this.timeout(120_000);

  afterEach(function () {
    dropScratch(this);
  });

  it('stores scattered pages together again, and each snapshot is whole and counts what changed', async function () {
    const { store, dir } = newStore(this);
    const { last, kept, counts } = await chain(store, noise(1, PAGES), 160);
    for (const { id, ram } of kept) assert.ok((await load(store, id))[RAM]!.equals(ram));
    for (const { changed, result } of counts) {
      assert.equal(result.newChunks, changed);
      assert.equal(result.unchangedPages, PAGES - changed);
      assert.equal(result.reusedChunks, 0);
    }
    assert.deepEqual((await store.check({ readData: true })).problems, []);
    // What is stored again needs room, at most half of what was changed. Manifest blocks are in both.
    const storedBy = (from: number): number =>
      counts.slice(from, from + 20).reduce((total, { result }) => total + result.storedBytes, 0);
    const growth = storedBy(140) / storedBy(0);
    assert.ok(growth > 1.2 && growth < 1.6, String(growth));

    store.remove(store.list().flatMap(({ id }) => (id === last ? [] : [id])));
    await store.gc({ dryRun: false });
    assert.ok((await load(store, last))[RAM]!.equals(kept.at(-1)!.ram));
    assert.ok(readdirSync(join(dir, 'packs')).length > 0);
  });

  it('leaves pages where they are that cannot be read, and saves the rest', async function () {
    const { store, dir } = newStore(this);
    let damaged: { path: string; bytes: Buffer } | null = null;
    const { last, kept } = await chain(store, noise(2, PAGES), 160, (n) => {
      if (n !== 60) return;
      // A byte of every frame of pages in the pack of the first save.
      const [name] = readdirSync(join(dir, 'packs')).sort();
      const path = join(dir, 'packs', name!);
      damaged = { path, bytes: readFileSync(path) };
      const bytes = Buffer.from(damaged.bytes);
      for (let at = 5000; at < PAGES * PAGE_BYTES; at += 30_000) bytes[at]! ^= 1;
      writeFileSync(path, bytes);
    });
    await assert.rejects(load(store, last), { code: 'DAMAGED' });
    writeFileSync(damaged!.path, damaged!.bytes);
    assert.ok((await load(store, last))[RAM]!.equals(kept.at(-1)!.ram));
    assert.deepEqual((await store.check({ readData: true })).problems, []);
  });
});
