import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { IndependentReader } from './independent-reader.js';
import { dropScratch, load, newStore, noise, save, scratchDir, textPages } from './scratch.js';

describe('an independent reader, written from docs/format.md', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('reads chains, tags, files, and packs that gc has rewritten', async function () {
    const { store, dir } = newStore(this);
    const ram = Buffer.concat([noise(1, 300), Buffer.alloc(700 * 4096), textPages(2, 600)]);
    const first = await save(store, { 'ram@0x0': ram, 'disk.a': textPages(3, 90) }, { tag: 'first' });
    const changed = Buffer.from(ram);
    noise(4, 20).copy(changed, 1100 * 4096);
    const pages = Array.from({ length: 20 }, (_, i) => 1100 + i);
    await save(
      store,
      { 'ram@0x0': changed, 'disk.a': textPages(3, 90) },
      { parent: first.id, only: { 'ram@0x0': pages, 'disk.a': [] }, tag: 'second' },
    );
    store.remove(['first']);
    await store.gc({ dryRun: false });
    const file = join(scratchDir(this), 'file');
    writeFileSync(file, noise(5, 33).subarray(0, 33 * 4096 - 5));
    const { id } = await store.put(file, { tags: ['file'], name: 'file' });
    await store.put(Readable.from([]), { tags: [], name: 'empty' });

    const reader = new IndependentReader(dir);
    assert.deepEqual(
      reader.ids(),
      store
        .list()
        .map((summary) => summary.id)
        .sort(),
    );
    assert.deepEqual(reader.tags(), { second: store.resolve('second'), file: id });
    for (const { id: each } of store.list()) {
      const { regions, description, state } = reader.read(each);
      assert.deepEqual(regions, await load(store, each));
      const snapshot = await store.openSnapshot(each);
      assert.deepEqual(state, Buffer.from(snapshot.metadata.state));
      assert.equal(description.vm, snapshot.metadata.vm);
      snapshot.close();
    }
  });
});
