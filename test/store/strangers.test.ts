/**
 * Links, pipes and journals in the place of a store's locks and index: no verb follows them, waits for them or creates
 * their targets.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { importSnapshots } from '../../src/store/remote/export.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { dropScratch, newStore, noise, save, scratchDir } from './scratch.js';

/** A rollback journal of one page that names a super-journal (https://www.sqlite.org/fileformat.html). */
function journalNaming(path: string, database: Buffer): Buffer {
  const pageSize = database.readUInt16BE(16);
  const sector = Buffer.alloc(512);
  Buffer.from('d9d505f920a163d7', 'hex').copy(sector);
  sector.writeUInt32BE(1, 8); // pages in the journal
  sector.writeUInt32BE(0, 12); // nonce
  sector.writeUInt32BE(database.length / pageSize, 16);
  sector.writeUInt32BE(512, 20);
  sector.writeUInt32BE(pageSize, 24);
  const page = Buffer.alloc(4 + pageSize + 4);
  page.writeUInt32BE(1, 0);
  database.copy(page, 4, 0, pageSize);
  let checksum = 0;
  for (let at = pageSize - 200; at > 0; at -= 200) checksum = (checksum + database[at]!) >>> 0;
  page.writeUInt32BE(checksum, 4 + pageSize);
  const name = Buffer.from(path);
  const end = Buffer.alloc(4 + name.length + 16);
  end.writeUInt32BE(Math.floor(2 ** 30 / pageSize) + 1, 0); // number of the page with the lock byte
  name.copy(end, 4);
  end.writeUInt32BE(name.length, 4 + name.length);
  end.writeUInt32BE(
    name.reduce((total, byte) => total + byte, 0),
    8 + name.length,
  );
  Buffer.from('d9d505f920a163d7', 'hex').copy(end, 12 + name.length);
  return Buffer.concat([sector, page, end]);
}

describe('a store with a rollback journal that names another file', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is refused, because SQLite would delete that file', async function () {
    const { store, dir } = newStore(this);
    await save(store, { x: noise(1, 3) });
    store.close();
    const victim = join(scratchDir(this), 'victim');
    writeFileSync(victim, 'of value');
    const journal = join(dir, 'store.db-journal');
    writeFileSync(journal, journalNaming(victim, readFileSync(join(dir, 'store.db'))));
    for (const write of [false, true])
      assert.throws(() => Store.open(dir, { write }).close(), { code: 'NOT_A_STORE', message: /elsewhere/ });
    await assert.rejects(
      importSnapshots({ storeDir: join(scratchDir(this), 'into'), from: dir, onPlan() {}, progress() {} }),
      { code: 'NOT_A_STORE' },
    );
    await Store.repair(dir);
    assert.equal(readFileSync(victim, 'utf8'), 'of value');
    Store.open(dir, { write: true }).close();
  });

  it('is told from one whose header is being written', async function () {
    const { store, dir } = newStore(this);
    await save(store, { x: noise(1, 3) });
    store.close();
    for (const write of [false, true]) {
      writeFileSync(join(dir, 'store.db-journal'), Buffer.from('d9d505f920a163d7', 'hex'));
      Store.open(dir, { write }).close();
    }
  });
});

describe('an index that an interrupted creation left in rollback mode', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is in WAL mode, without a journal, after the store is opened for writing', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { x: noise(1, 3) });
    store.close();
    const path = join(dir, 'store.db');
    const journal = `${path}-journal`;
    const index = new Database(path);
    index.pragma('journal_mode = DELETE');
    index.close();
    writeFileSync(journal, Buffer.alloc(516)); // a header that was never synced
    // Bytes 18 and 19 are the write and the read version, 2 for WAL (https://www.sqlite.org/fileformat.html).
    const versions = (): number[] => [...readFileSync(path).subarray(18, 20)];
    Store.open(dir, { write: false }).close();
    assert.ok(existsSync(journal));
    assert.deepEqual(versions(), [1, 1]);
    const opened = Store.open(dir, { write: true });
    assert.equal(existsSync(journal), false);
    assert.ok(opened.show(id));
    opened.close();
    assert.deepEqual(versions(), [2, 2]);
  });
});

describe('a store whose locks or index are', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const impostors: Record<string, (path: string, outside: string) => void> = {
    'dangling links': (path, outside) => symlinkSync(join(outside, 'made'), path),
    'links to existing files': (path, outside) => {
      if (existsSync(path)) throw new Error(`${path} exists`);
      execFileSync('touch', [join(outside, 'there')]);
      symlinkSync(join(outside, 'there'), path);
    },
    pipes: (path) => void execFileSync('mkfifo', [path]),
  };
  for (const [what, put] of Object.entries(impostors))
    it(`${what} is refused, and no file is created elsewhere`, async function () {
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
