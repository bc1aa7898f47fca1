/** A page Worker may die of a bug, or when memory is short. Its jobs fail with the reason, and the store still works. */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { BATCH_PAGES } from '../../src/page-stream.js';
import { replacePageWorkers } from '../../src/store/worker/page-pool.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

const CAUSES = {
  end: { message: 'a worker thread of the store failed: it ended with status 3', hint: /^Try again\./ },
  throw: { message: 'a worker thread of the store failed: a bug in the page Worker', hint: /^Try again\./ },
  'throw-own': { message: 'a package cannot be loaded', hint: /^npm rebuild$/ },
};

describe('a page Worker that dies', () => {
  beforeEach(() => replacePageWorkers(new URL('./dying-page-worker.js', import.meta.url)));
  afterEach(function () {
    replacePageWorkers();
    dropScratch(this);
  });

  for (const [cause, { message, hint }] of Object.entries(CAUSES)) {
    const fails = (error: LivesnapError): boolean => {
      assert.deepEqual([error.code, error.message], ['SYSTEM', message]);
      assert.match(error.hint!, hint);
      return true;
    };

    it(`fails the restore with the reason (${cause}), and the next restore works`, async function () {
      const { store, dir } = newStore(this);
      const contents = { 'ram@0x0': noise(1, 20 * BATCH_PAGES) };
      const { id } = await save(store, contents);
      replacePageWorkers(new URL('./dying-page-worker.js', import.meta.url));
      writeFileSync(join(dir, '..', cause), '');
      await assert.rejects(load(store, id), fails);
      assert.ok(!existsSync(join(dir, '..', cause)), 'one Worker died');
      assert.deepEqual(await load(store, id), contents);
      assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
    });
  }
});
