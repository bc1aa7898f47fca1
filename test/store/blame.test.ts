/** Errors name what failed: a source or sink that fails is not blamed on the store, and limits are named. */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type LivesnapError, SystemError } from '../../src/errors.js';
import { BATCH_PAGES, type PageRun, type PageSink } from '../../src/page-stream.js';
import { storeError } from '../../src/store/disk/store-error.js';
import { exportSnapshot } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { dropScratch, load, MemorySource, newStore, noise, save, scratchDir } from './scratch.js';

const failure = (code: string): NodeJS.ErrnoException =>
  Object.assign(new Error(`${code}: not of the store`), { code, syscall: 'read' });

describe('an error', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const code of ['EIO', 'ENOSPC', 'EACCES', 'EROFS'])
    it(`${code} of a source passes through a save unchanged`, async function () {
      const { store } = newStore(this);
      const source = new MemorySource({ ram: noise(1, 600) });
      const next = source.next.bind(source);
      const error = failure(code);
      let batches = 0;
      source.next = async (into: Uint8Array): Promise<PageRun | null> => {
        if (++batches === 3) throw error;
        return next(into);
      };
      const session = await store.beginSave({ regions: [] });
      await assert.rejects(session.store(source), (thrown) => thrown === error);
      await session.abort();
      assert.equal(store.list().length, 0);
      await save(store, { ram: noise(1, 600) });
    });

  for (const code of ['EIO', 'ENOSPC', 'EACCES', 'EROFS'])
    it(`${code} of a sink passes through a restore unchanged`, async function () {
      const { store } = newStore(this);
      const { id } = await save(store, { ram: noise(1, 600) });
      const error = failure(code);
      const snapshot = await store.openSnapshot(id);
      try {
        const sink: PageSink = {
          regions: snapshot.regions,
          write: () => {
            throw error;
          },
        };
        await assert.rejects(snapshot.fill(sink), (thrown) => thrown === error);
      } finally {
        snapshot.close();
      }
      await load(store, id);
    });

  it('of a sink ends a restore soon, not after all pages', async function () {
    const { store } = newStore(this);
    const { id } = await save(store, { ram: noise(1, 20 * BATCH_PAGES) });
    const snapshot = await store.openSnapshot(id);
    let batches = 0;
    const write = (): void => {
      if (++batches === 1) throw failure('EIO');
    };
    await assert.rejects(snapshot.fill({ regions: snapshot.regions, write }), { code: 'EIO' });
    snapshot.close();
    assert.ok(batches <= 4, `${batches} batches: at most one for each of the other lanes`);
  });

  const of = (error: unknown) => storeError('/s', error) as { code: string; message: string };

  it('of a native call has the code and message of the same error in Node', () => {
    for (const errno of ['ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EIO', 'EFBIG']) {
      const native = of(new SystemError('fallocate', 5, errno, 'native'));
      const node = of(Object.assign(new Error('fallocate: native'), { code: errno, syscall: 'fallocate' }));
      assert.deepEqual([native.code, native.message], [node.code, node.message], errno);
    }
  });

  it('of SQLite has the same meaning for all extended codes', () => {
    const codes = [
      'SQLITE_BUSY_RECOVERY',
      'SQLITE_CORRUPT_INDEX',
      'SQLITE_READONLY_DIRECTORY',
      'SQLITE_FULL',
    ];
    const means = codes.map((code) => of(Object.assign(new Error('x'), { code })).code);
    assert.deepEqual(means, ['STORE_BUSY', 'DAMAGED', 'READ_ONLY', 'NO_SPACE']);
  });

  it('SQLITE_IOERR names the two things that cause it', () => {
    const { code, hint } = storeError(
      '/s',
      Object.assign(new Error('disk I/O error'), { code: 'SQLITE_IOERR_TRUNCATE' }),
    ) as LivesnapError;
    assert.equal(code, 'SYSTEM');
    assert.match(hint!, /full.*faults of the disk/);
  });

  it('EFBIG is not reported as a full disk', () => {
    assert.match(of(failure('EFBIG')).message, /too large for its file system/);
  });
});

describe('a store whose path is too long for SQLite', () => {
  const cwd = process.cwd();

  afterEach(function () {
    process.chdir(cwd);
    dropScratch(this);
  });

  /** A directory whose path has `length` bytes. */
  function longPath(base: string, length: number): string {
    let path = base;
    while (path.length < length)
      path = join(path, 'd'.repeat(Math.min(100, Math.max(1, length - path.length - 1))));
    return path;
  }

  it('is refused before anything is created, and one with the longest allowed path works', async function () {
    const base = scratchDir(this);
    for (const length of [492, 520, 3000]) {
      const dir = longPath(base, length);
      for (const open of [() => Store.open(dir, { write: true, create: true })])
        assert.throws(open, {
          code: 'USAGE',
          message: `the path of the store ${dir} is longer than 491 bytes`,
        });
      assert.deepEqual(readdirSync(base), []);
    }
    const dir = longPath(base, 491);
    assert.equal(dir.length, 491);
    const store = Store.open(dir, { write: true, create: true });
    await save(store, { ram: noise(1, 20) }, { tag: 't' });
    store.close();
    await Store.repair(dir);
    const again = Store.open(dir, { write: true });
    await load(again, 't');
    again.close();
  });

  it('cannot be made by an export, which creates nothing', async function () {
    const { store, dir } = newStore(this);
    await save(store, { ram: noise(1, 20) }, { tag: 't' });
    const base = scratchDir(this);
    const to = longPath(base, 480); // the export is made in a directory beside it with a longer path
    await assert.rejects(
      exportSnapshot({ onPlan: () => {}, progress: () => {}, storeDir: dir, ref: 't', to }),
      { code: 'USAGE' },
    );
    assert.deepEqual(readdirSync(base), []);
  });

  it('is recognised by its path with links resolved', function () {
    const base = scratchDir(this);
    const dir = longPath(base, 480);
    mkdirSync(dir, { recursive: true });
    process.chdir(dir);
    assert.throws(() => Store.open('a-long-name', { write: true, create: true }), { code: 'USAGE' });
    assert.deepEqual(readdirSync('.'), []);
    process.chdir(cwd);
    rmSync(join(base, readdirSync(base)[0]!), { recursive: true });
  });

  it('can be read after it was moved there, but not repaired', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { ram: noise(1, 20) });
    store.close();
    const moved = longPath(scratchDir(this), 600);
    cpSync(dir, moved, { recursive: true });
    const reader = Store.open(moved, { write: false });
    assert.deepEqual(await load(reader, id), { ram: noise(1, 20) });
    reader.close();
    await assert.rejects(Store.repair(moved), { code: 'USAGE' });
    assert.throws(() => Store.open(moved, { write: true }), { code: 'USAGE' });
  });
});
