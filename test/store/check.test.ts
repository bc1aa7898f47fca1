/** check of a pack in which every frame is damaged: each frame is a finding, with the snapshots that need it. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pageOps } from '../../src/native/pages.js';
import { PAGE_BYTES } from '../../src/page-stream.js';
import { parsePackName } from '../../src/store/disk/layout.js';
import { PackReader } from '../../src/store/pack/pack-reader.js';
import { dropScratch, newStore, noise, save } from './scratch.js';

describe('check', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('reports every damaged frame once, with the snapshots that need it', async function () {
    const { store, dir } = newStore(this);
    const ram = noise(1, 600);
    const a = await save(store, { 'ram@0x0': ram });
    const [name] = readdirSync(join(dir, 'packs')) as [string];
    const b = await save(store, { other: ram.subarray(16 * PAGE_BYTES, 48 * PAGE_BYTES) });
    const reader = new PackReader(pageOps, dir, parsePackName(name)!);
    reader.close();
    const path = join(dir, 'packs', name);
    const bytes = readFileSync(path);
    // Only frames of pages: without the manifest frames of `a`, check cannot tell which pages it needs.
    const frames = [...reader.frames].filter(({ flags }) => (flags & 2) === 0);
    for (const { offset } of frames) bytes[offset + 60]! ^= 1;
    writeFileSync(path, bytes);
    const { problems } = await store.check({ readData: true });
    assert.deepEqual(
      problems.map(({ file, offset, snapshots }) => ({ file, offset, snapshots })),
      frames.map(({ offset, first }) => ({
        file: `packs/${name}`,
        offset,
        snapshots: (first === 16 || first === 32 ? [a.id, b.id] : [a.id]).sort(),
      })),
    );
  });
});
