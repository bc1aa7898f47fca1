import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Index } from '../../../../src/store/index/index-database.js';
import { takeNumber } from '../../../../src/store/index/number-stock.js';
import { openIndex } from '../../../../src/store/open-store.js';
import { Store } from '../../../../src/store/store.js';
import { dropScratch, scratchDir } from '../../../store/scratch.js';

describe('the stock of pack numbers', () => {
  let dir: string;
  beforeEach(function () {
    dir = join(scratchDir(this), 'store');
    openIndex(dir, true, true).close();
  });
  afterEach(function () {
    dropScratch(this);
  });

  function withIndex<T>(work: (index: Index) => T): T {
    const index = Index.open(dir, true);
    try {
      return work(index);
    } finally {
      index.close();
    }
  }
  const take = (): number => withIndex((index) => takeNumber({ dir, index }));
  const nextNumber = (): number => withIndex((index) => index.nextNumber());

  it('gives each number once, with one transaction for 16 numbers, across openings of the store', () => {
    const numbers = Array.from({ length: 16 }, take);
    assert.equal(new Set(numbers).size, 16);
    assert.equal(nextNumber(), 17);
    const others = withIndex((index) => index.reserveNumbers(3));
    const later = [take(), take()];
    assert.deepEqual([...others, ...later], [17, 18, 19, 20, 21]);
  });

  it('gives no number of an index that repair has replaced', async () => {
    take();
    await Store.repair(dir);
    const number = take();
    assert.ok(number < nextNumber(), `${number} is reserved in the new index`);
    assert.equal(number, 1);
  });

  it('gives no number of an index that was overwritten by an older copy', () => {
    const path = join(dir, 'store.db');
    copyFileSync(path, `${dir}.old`);
    take();
    writeFileSync(path, readFileSync(`${dir}.old`));
    const number = take();
    assert.ok(number < nextNumber(), `${number} is reserved in the index as it is`);
  });
});
