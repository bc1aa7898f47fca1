/** Links and pipes with the names of a store's locks and index: nobody follows them, waits for them or makes their ends. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { Store } from '../../src/store/store.js';
import { dropScratch, newStore, noise, save, scratchDir } from './scratch.js';

describe('a store whose own files are', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const strangers: Record<string, (path: string, outside: string) => void> = {
    'dangling links': (path, outside) => symlinkSync(join(outside, 'made'), path),
    'links to files that are there': (path, outside) => {
      if (existsSync(path)) throw new Error('it is there');
      execFileSync('touch', [join(outside, 'there')]);
      symlinkSync(join(outside, 'there'), path);
    },
    pipes: (path) => void execFileSync('mkfifo', [path]),
  };
  for (const [what, put] of Object.entries(strangers))
    it(`${what} is refused, and nothing is made elsewhere`, async function () {
      const { store, dir } = newStore(this);
      const { id } = await save(store, { x: noise(1, 3) });
      store.close();
      const outside = scratchDir(this);
      const locks = ['index.lock', 'lock'];
      const index = ['store.db', 'store.db-wal', 'store.db-shm', 'store.db-journal'];
      for (const file of [...locks, ...index]) {
        const path = join(dir, file);
        const aside = join(outside, 'aside');
        if (existsSync(path)) renameSync(path, aside);
        put(path, outside);
        const verbs: (() => unknown)[] = [false, true].map((write) => () => {
          const opened = Store.open(dir, { write });
          try {
            return opened.stats();
          } finally {
            opened.close();
          }
        });
        if (locks.includes(file)) verbs.push(() => Store.repair(dir));
        for (const [i, verb] of verbs.entries())
          await assert.rejects(
            async () => verb(),
            { code: 'NOT_A_STORE', message: new RegExp(`${file} is`) },
            `${file} ${i}`,
          );
        if (index.includes(file)) await Store.repair(dir);
        assert.ok(!existsSync(join(outside, 'made')), file);
        if (locks.includes(file)) rmSync(path);
        if (locks.includes(file) && existsSync(aside)) renameSync(aside, path);
        else rmSync(aside, { force: true });
        rmSync(join(outside, 'there'), { force: true });
      }
      const again = Store.open(dir, { write: true });
      assert.deepEqual(
        [again.list()[0]!.id, await again.check({ readData: true })],
        [id, { ok: true, problems: [] }],
      );
      again.close();
    });
});
