/** Snapshots with manifest pages beyond the end of a region. Only a program that computes digests can write them. */
import assert from 'node:assert/strict';
import { closeSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { readSnapshotFile, snapshotFile, writeSnapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

/** Rewrites the file of a snapshot so that its only region has `pages` pages. The blocks stay. */
function shorten(dir: string, id: string, pages: number): void {
  const { description, blocks, state } = readSnapshotFile(dir, id);
  const [region] = description.regions;
  const regions = [{ ...region!, sizeBytes: pages * PAGE_BYTES, nonZeroPages: pages }];
  unlinkSync(join(dir, snapshotFile(id)));
  closeSync(writeSnapshotFile(dir, { ...description, regions }, blocks, state).fd);
}

const damage = {
  code: 'DAMAGED',
  message:
    /^snapshot \w+ is damaged: \w+ (offset \w+ to \w+ )?cannot be read: packs\/\S+ at offset \d+: .*beyond the end of its region$/,
};

describe('a manifest block with pages beyond its region', () => {
  afterEach(function () {
    dropScratch(this);
  });

  // In the second case the page is the last of a block that another snapshot has in the middle of its region.
  for (const [pages, shortened] of [
    [10, 5],
    [600, 511],
  ] as const)
    it(`is reported as damage by every verb that reads it (${shortened} of ${pages} pages)`, async function () {
      const { store, dir } = newStore(this);
      const whole = (await save(store, { ram: noise(1, pages) })).id;
      const id = (await save(store, { ram: noise(1, Math.min(pages, 512)) })).id;
      store.close();
      shorten(dir, id, shortened);
      await Store.repair(dir); // makes the index match the file
      const repaired = Store.open(dir, { write: true });
      try {
        await assert.rejects(load(repaired, id), damage);
        await assert.rejects(
          save(repaired, { ram: noise(1, pages) }, { parent: id, only: { ram: [0] } }),
          damage,
        );
        const { problems } = await repaired.check({ readData: false });
        assert.deepEqual(
          problems.map(({ snapshots, message }) => ({ snapshots, message })),
          [{ snapshots: [id], message: 'a manifest block has pages beyond the end of its region' }],
        );
        assert.deepEqual(await load(repaired, whole), { ram: noise(1, pages) });
      } finally {
        repaired.close();
      }
    });

  it('is reported as damage of a stored file as well', async function () {
    const { store, dir } = newStore(this);
    const { id } = await store.put(Readable.from([noise(1, 10)]), { tags: [], name: null });
    shorten(dir, id, 5);
    const output = new Writable({ write: (_chunk, _encoding, done) => done() });
    await assert.rejects(store.get(id, output), damage);
    await assert.rejects(store.get(id, `${dir}-file`), damage);
  });
});
