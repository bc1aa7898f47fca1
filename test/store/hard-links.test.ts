/** Copies of a store by hard links (`cp -al`): a change to one does not affect the other. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs, {
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyIndex } from '../../src/store/index/index-files.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { dropScratch, load, newStore, noise, save } from './scratch.js';

const child = fileURLToPath(new URL('./killed-in-use-child.js', import.meta.url));
const rowsChild = fileURLToPath(new URL('./rows-child.js', import.meta.url));

/** A closed store with three tags, and a path for its copy. */
async function make(test: Mocha.Context): Promise<{ dir: string; copy: string }> {
  const { store, dir } = newStore(test);
  for (const tag of ['t1', 't2', 't3']) await save(store, { ram: noise(tag.charCodeAt(1), 40) }, { tag });
  store.close();
  return { dir, copy: `${dir}-copy` };
}

const linkAll = (dir: string, copy: string): void => void execFileSync('cp', ['-al', dir, copy]);

async function use<T>(dir: string, write: boolean, work: (store: Store) => T | Promise<T>): Promise<T> {
  const store = Store.open(dir, { write });
  try {
    return await work(store);
  } finally {
    store.close();
  }
}

const tags = (dir: string): Promise<string[]> =>
  use(dir, false, (store) =>
    store
      .list()
      .flatMap((snapshot) => snapshot.tags)
      .sort(),
  );

/** The bytes and times of the files of the index. */
const stateOf = (dir: string): string[] =>
  readdirSync(dir)
    .filter((name) => name.startsWith('store.db'))
    .sort()
    .map((name) => `${name} ${statSync(join(dir, name)).mtimeMs} ${readFileSync(join(dir, name), 'base64')}`);

/** The bytes of the database and its log. SQLite may leave an empty log. */
const readIndex = (dir: string): string[] => {
  const log = join(dir, 'store.db-wal');
  return [join(dir, 'store.db'), log].map((path) => (existsSync(path) ? readFileSync(path, 'base64') : ''));
};

async function requireWhole(dir: string, expected: string[]): Promise<void> {
  assert.deepEqual(await tags(dir), expected);
  await use(dir, true, async (store) => {
    assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
    for (const tag of expected) await load(store, tag);
  });
}

describe('a copy of a store by hard links', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const [which, other] of [
    ['copy', 'dir'],
    ['dir', 'copy'],
  ] as const)
    it(`${which === 'copy' ? 'can be changed without changing the original' : 'does not change with the original'}`, async function () {
      const made = await make(this);
      linkAll(made.dir, made.copy);
      const before = stateOf(made[other]);
      await use(made[which], true, async (store) => {
        store.remove(['t1', 't2']);
        await store.gc({ dryRun: false });
        await save(store, { ram: noise(7, 30) }, { tag: 'new' });
      });
      assert.deepEqual(stateOf(made[other]), before);
      await requireWhole(made[which], ['new', 't3']);
      await requireWhole(made[other], ['t1', 't2', 't3']);
    });

  for (const killed of [false, true])
    it(`can be read without changing either${killed ? ', even with a log' : ''}`, async function () {
      const { dir, copy } = await make(this);
      if (killed) assert.equal(spawnSync(process.execPath, [child, dir]).signal, 'SIGKILL');
      linkAll(dir, copy);
      const before = readIndex(dir);
      for (const at of [dir, copy])
        await use(at, false, async (store) => {
          await load(store, 't1');
          assert.deepEqual(await store.check({ readData: false }), { ok: true, problems: [] });
        });
      for (const at of [dir, copy]) assert.deepEqual(readIndex(at), before);
    });

  it('has the changes in the log that a killed writer left', async function () {
    const { dir, copy } = await make(this);
    assert.equal(spawnSync(process.execPath, [child, dir]).signal, 'SIGKILL');
    assert.ok(lstatSync(join(dir, 'store.db-wal')).size > 0);
    linkAll(dir, copy);
    await use(copy, true, (store) => void store.remove(['t1']));
    await requireWhole(copy, ['renamed', 't3']);
    await requireWhole(dir, ['renamed', 't1', 't3']);
  });

  it('can be read but not written while another process has the shared database open', async function () {
    const { dir, copy } = await make(this);
    await use(dir, true, async () => {
      linkAll(dir, copy);
      for (const at of [dir, copy]) {
        await assert.rejects(
          use(at, true, () => {}),
          {
            code: 'STORE_BUSY',
            message: `${at}/store.db has another hard link, and another process has it open`,
          },
        );
        assert.deepEqual(await tags(at), ['t1', 't2', 't3']);
      }
    });
    await use(copy, true, (store) => void store.remove(['t1']));
    await requireWhole(dir, ['t1', 't2', 't3']);
  });

  it('gets its own database even if an earlier attempt was interrupted', async function () {
    const { dir, copy } = await make(this);
    linkAll(dir, copy);
    // The state after a power cut before the last step (index-replacement.ts).
    copyFileSync(join(copy, 'store.db'), join(copy, 'store.db.next'));
    execFileSync('mv', [join(copy, 'store.db'), join(copy, 'store.db.old')]);
    await use(copy, true, (store) => void store.remove(['t1']));
    await requireWhole(copy, ['t2', 't3']);
    await requireWhole(dir, ['t1', 't2', 't3']);
  });

  it('includes a hard link to the log alone', async function () {
    const { dir } = await make(this);
    assert.equal(spawnSync(process.execPath, [child, dir]).signal, 'SIGKILL');
    const wal = join(dir, 'store.db-wal');
    linkSync(wal, `${dir}-wal`);
    const before = readFileSync(wal);
    await use(dir, true, (store) => void store.remove(['t1']));
    assert.deepEqual(readFileSync(`${dir}-wal`), before);
    await requireWhole(dir, ['renamed', 't3']);
  });
});

describe('a private copy of the index', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('has the bytes of one moment, even if another process commits during the copy', function () {
    const { store, dir } = newStore(this);
    store.close();
    const change = (): void => void execFileSync(process.execPath, [rowsChild, dir]);
    change();
    assert.ok(statSync(join(dir, 'store.db')).size > 1 << 20, 'the database fits into one read');
    const { readSync } = fs;
    let pieces = 0;
    fs.readSync = ((...args: Parameters<typeof readSync>) => {
      const got = readSync(...args);
      if (++pieces === 1) change();
      return got;
    }) as typeof readSync;
    syncBuiltinESMExports();
    const path = `${dir}-copy.db`;
    try {
      copyIndex(dir, path);
    } finally {
      fs.readSync = readSync;
      syncBuiltinESMExports();
    }
    const copy = new Database(path);
    try {
      assert.equal(copy.pragma('integrity_check', { simple: true }), 'ok');
      assert.deepEqual(copy.prepare('SELECT DISTINCT sizeBytes FROM packs').pluck().all(), [3]);
    } finally {
      copy.close();
    }
  });
});
