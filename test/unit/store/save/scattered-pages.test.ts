import assert from 'node:assert/strict';
import { scatteredPages } from '../../../../src/store/save/scattered-pages.js';
import { BLOCK_PAGES } from '../../../../src/store/snapshot/block-list.js';
import { ManifestBlock } from '../../../../src/store/snapshot/manifest.js';

const NEW_PACK = 999_999;

/** Blocks of a base with the place of each page, of which the pages in `changed` have new places. */
function blocksOf(
  placeOf: (page: number) => readonly [number, number],
  blockCount: number,
  changed: number[],
) {
  const blocks = new Map<number, { block: ManifestBlock; basePlaces: Uint32Array }>();
  for (let number = 0; number < blockCount; number++) {
    const block = new ManifestBlock();
    for (let page = 0; page < BLOCK_PAGES; page++)
      block.places.set(placeOf(number * BLOCK_PAGES + page), 2 * page);
    blocks.set(number, { block, basePlaces: block.places.slice() });
  }
  changed.forEach((page, i) => {
    const { block } = blocks.get(Math.floor(page / BLOCK_PAGES))!;
    block.places.set([NEW_PACK, i], 2 * (page % BLOCK_PAGES));
  });
  return blocks;
}

const evens = (count: number): number[] => Array.from({ length: count }, (_, i) => 2 * i);

describe('scatteredPages', () => {
  it('finds none where frames are full, or nearly', () => {
    const full = (page: number) => [1, page] as const;
    assert.deepEqual(scatteredPages(blocksOf(full, 2, [])), []);
    assert.deepEqual(
      scatteredPages(
        blocksOf(
          full,
          2,
          evens(10).map((page) => page * 16),
        ),
      ),
      [],
    );
    assert.deepEqual(scatteredPages(new Map()), []);
  });

  it('finds half as many pages as were changed, those of the emptiest frames first', () => {
    // Pages below 100 are in frames with one page each, the others in frames with four.
    const placeOf = (page: number) =>
      page < 100 ? ([1 + page, 0] as const) : ([1000 + Math.floor(page / 4), page % 4] as const);
    const changed = Array.from({ length: 60 }, (_, i) => 1023 - i);
    const found = scatteredPages(blocksOf(placeOf, 2, changed));
    assert.equal(found.length, 30);
    // Frames that share a counter seem fuller.
    assert.ok(found.filter((page) => page < 100).length >= 28, found.join());
    assert.deepEqual(
      found,
      [...new Set(found)].sort((a, b) => a - b),
    );
  });

  it('leaves zero pages and changed pages alone', () => {
    const placeOf = (page: number) => (page % 2 === 0 ? ([0, 0] as const) : ([1 + page, 0] as const));
    const changed = Array.from({ length: 100 }, (_, i) => 2 * i + 1);
    const found = scatteredPages(blocksOf(placeOf, 1, changed));
    assert.equal(found.length, 50);
    assert.ok(found.every((page) => page % 2 === 1 && !changed.includes(page)));
  });
});
