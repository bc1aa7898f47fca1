import assert from 'node:assert/strict';
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { PageProof } from '../../src/native/page-proof.js';
import { loadNativePageOps, loadPortablePageOps, type PageOps } from '../../src/native/pages.js';
import { BATCH_PAGES, PAGE_BYTES } from '../../src/page-stream.js';
import { Store } from '../../src/store/store.js';
import { Packer } from '../../src/store/worker/packer.js';
import { PageBatch } from '../../src/store/worker/page-batch.js';
import { copyAsGeneration, packNames } from './regions.js';
import {
  dropScratch,
  flipBit,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
  seeded,
  textPages,
} from './scratch.js';

const PAGES = 100;
const SEED = Number(process.env.LIVESNAP_SEED ?? 20260401);
const ROUNDS = Number(process.env.LIVESNAP_ROUNDS ?? 4);

describe('the proof that pages equal stored chunks', () => {
  afterEach(function () {
    dropScratch(this);
  });

  /** A store whose first pack, number 1, begins with these pages; and a proof in it. */
  async function stored(context: Mocha.Context): Promise<{ dir: string; pages: Buffer; proof: PageProof }> {
    const { store, dir } = newStore(context);
    const pages = Buffer.concat([noise(1, PAGES / 2), textPages(2, PAGES / 2)]);
    await save(store, { 'ram@0x0': pages });
    assert.deepEqual(packNames(dir), ['00000001-0.pack']);
    return { dir, pages, proof: openProof(context, dir) };
  }

  function openProof(context: Mocha.Context, dir: string): PageProof {
    const proof = new PageProof(join(dir, 'packs'), BATCH_PAGES);
    onDrop(context, () => proof.close());
    return proof;
  }

  /** The pages that are found equal, of claims that page i equals chunk `chunkOf(i)`. */
  function equalPages(
    proof: PageProof,
    pages: Buffer,
    { pack = 1, generation = 0, chunkOf = (page: number) => page } = {},
  ): number[] {
    proof.clear();
    for (let i = 0; i < PAGES; i++) proof.claim(i, pack, generation, chunkOf(i));
    proof.prove(pages);
    return Array.from({ length: PAGES }, (_, i) => i).filter((i) => proof.isTrue(i));
  }

  const all = Array.from({ length: PAGES }, (_, i) => i);

  it('finds all that are equal, in any order', async function () {
    const { pages, proof } = await stored(this);
    assert.deepEqual(equalPages(proof, pages), all);
    const backwards = Buffer.concat(
      all.map((i) => pages.subarray((PAGES - 1 - i) * PAGE_BYTES, (PAGES - i) * PAGE_BYTES)),
    );
    assert.deepEqual(equalPages(proof, backwards, { chunkOf: (i) => PAGES - 1 - i }), all);
  });

  it('finds none that differs, in its first or last byte', async function () {
    const { pages, proof } = await stored(this);
    for (const i of [0, 17, 60]) pages[i * PAGE_BYTES]! ^= 1;
    for (const i of [16, 99]) pages[(i + 1) * PAGE_BYTES - 1]! ^= 128;
    assert.deepEqual(
      equalPages(proof, pages),
      all.filter((i) => ![0, 16, 17, 60, 99].includes(i)),
    );
    assert.deepEqual(equalPages(proof, pages, { chunkOf: (i) => i ^ 1 }), []);
  });

  it('finds none in a damaged frame, and all in the others', async function () {
    const { dir, pages, proof } = await stored(this);
    flipBit(join(dir, 'packs/00000001-0.pack'), 32 + 70_000); // the second frame
    assert.deepEqual(
      equalPages(proof, pages),
      all.filter((i) => i < 16 || i >= 32),
    );
  });

  it('finds none of a chunk or a pack that does not exist', async function () {
    const { pages, proof } = await stored(this);
    assert.deepEqual(equalPages(proof, pages, { chunkOf: (i) => i + 200 }), []);
    assert.deepEqual(equalPages(proof, pages, { chunkOf: () => 0xffffffff }), []);
    assert.deepEqual(equalPages(proof, pages, { pack: 7 }), []);
    assert.deepEqual(equalPages(proof, pages), all);
  });

  it('reads exactly the generation that is claimed', async function () {
    const { dir, pages, proof } = await stored(this);
    assert.deepEqual(equalPages(proof, pages, { generation: 1 }), []);
    assert.deepEqual(equalPages(proof, pages), all);
    copyAsGeneration(join(dir, 'packs/00000001-0.pack'), 1);
    assert.deepEqual(equalPages(proof, pages, { generation: 1 }), all);
    renameSync(join(dir, 'packs/00000001-0.pack'), join(dir, 'away'));
    const other = openProof(this, dir);
    assert.deepEqual(equalPages(other, pages), []);
    assert.deepEqual(equalPages(other, pages, { generation: 1 }), all);
  });

  it('refuses pages outside their buffer, and to go on when it is closed', async function () {
    const { pages, proof } = await stored(this);
    proof.clear();
    proof.claim(PAGES, 1, 0, 0);
    assert.throws(() => proof.prove(pages), TypeError);
    proof.close();
    assert.throws(() => proof.prove(pages), TypeError);
  });

  it('changes nothing in what a save stores and where', async function () {
    const portable = await loadPortablePageOps();
    for (let round = 0; round < ROUNDS; round++) {
      const seed = SEED + round;
      const [native, other] = [loadNativePageOps(), portable].map((ops) => placesOf(this, ops, seed));
      assert.deepEqual(native, other, `LIVESNAP_SEED=${seed} LIVESNAP_ROUNDS=1`);
    }
  });

  /** The places of the pages of some saves without commits, each of which the next one has as its parent. */
  function placesOf(context: Mocha.Context, ops: PageOps, seed: number): number[][] {
    const next = seeded(seed);
    const dir = join(scratchDir(context), 'store');
    Store.open(dir, { write: true, create: true }).close();
    const generations = new Map<number, number>();
    const results: number[][] = [];
    const batch = new PageBatch();
    for (let number = 1; number <= 4; number++) {
      const packer = new Packer(ops, dir, new Map(generations), []);
      packer.addPackNumbers([number, 100 + number]);
      for (let part = 0; part < 3; part++) {
        const count = 1 + (next() % BATCH_PAGES);
        for (let i = 0; i < count; i++) {
          const kind = next() % 8;
          const into = batch.pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
          if (kind === 0) into.fill(0);
          else if (kind <= 2) into.set(noise(next() % 300, 1));
          else if (kind === 3) into[next() % PAGE_BYTES]! ^= 1;
        }
        packer.deduplicate(batch, count, false);
        batch.priorFingerprints.set(batch.fingerprintWords);
        batch.priorPlaces.set(batch.places);
        // As when the parent has something else there, or is damaged.
        for (let i = 0; i < 8; i++) batch.priorPlaces[2 * (next() % BATCH_PAGES) + 1]! ^= next() % 4;
        results.push([...batch.places.subarray(0, 2 * count)]);
      }
      for (const { number: sealed, generation } of packer.seal().packs) generations.set(sealed, generation);
      packer.end();
    }
    return results;
  }
});
