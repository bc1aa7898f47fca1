import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import {
  diskUsage,
  dropScratch,
  load,
  mountReadOnly,
  newStore,
  noise,
  save,
  scratchDir,
  textPages,
} from './scratch.js';

const modes = (dir: string): [string, string][] =>
  readdirSync(dir, { recursive: true, withFileTypes: true }).map((entry) => {
    const path = join(entry.parentPath, entry.name);
    return [path, (statSync(path).mode & 0o777).toString(8)];
  });

const savingChild = fileURLToPath(new URL('./saving-child.js', import.meta.url));

describe('a store', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('is not opened if it does not exist, is something else, or has a newer format', function () {
    const dir = scratchDir(this);
    assert.throws(() => Store.open(join(dir, 'none'), { write: false }), { code: 'NO_SUCH_FILE' });
    // A directory or a file system that was made for a store.
    for (const name of [null, 'lost+found']) {
      if (name !== null) mkdirSync(join(dir, name));
      assert.throws(() => Store.open(dir, { write: false }), {
        code: 'NO_SUCH_FILE',
        message: /no store at/,
      });
    }

    const file = join(dir, 'file');
    writeFileSync(file, 'x');
    assert.throws(() => Store.open(dir, { write: false }), { code: 'NOT_A_STORE' });
    assert.throws(() => Store.open(file, { write: true, create: true }), { code: 'NOT_A_STORE' });

    const home = join(dir, 'home');
    mkdirSync(home);
    writeFileSync(join(home, 'letter'), 'x');
    assert.throws(() => Store.open(home, { write: true, create: true }), { code: 'NOT_A_STORE' });
    assert.deepEqual(readdirSync(home), ['letter']);

    writeFileSync(join(home, 'store.db'), 'a text that is not a database at all');
    assert.throws(() => Store.open(home, { write: false }), { code: 'NOT_A_STORE' });

    const newer = join(dir, 'newer');
    Store.open(newer, { write: true, create: true }).close();
    const database = new Database(join(newer, 'store.db'));
    database.pragma('user_version = 7');
    database.close();
    for (const write of [false, true])
      assert.throws(() => Store.open(newer, { write }), { code: 'NEWER_FORMAT', message: /format 7/ });

    const foreign = join(dir, 'foreign');
    mkdirSync(foreign);
    const other = new Database(join(foreign, 'store.db'));
    other.exec('CREATE TABLE t (x)');
    other.close();
    assert.throws(() => Store.open(foreign, { write: true, create: true }), { code: 'NOT_A_STORE' });
  });

  it('creates its empty directories again if they are missing', async function () {
    const { store, dir } = newStore(this);
    store.close();
    for (const name of ['packs', 'segments', 'snapshots', 'tags']) rmdirSync(join(dir, name));
    const again = Store.open(dir, { write: true });
    try {
      await again.gc({ dryRun: false });
      const contents = { 'ram@0x0': noise(1, 20) };
      const { id } = await save(again, contents, { tag: 'a' });
      assert.deepEqual(await load(again, id), contents);
      assert.deepEqual((await again.check({ readData: true })).problems, []);
      for (const name of ['packs', 'segments', 'snapshots', 'tags'])
        assert.equal(statSync(join(dir, name)).mode & 0o777, 0o700);
    } finally {
      again.close();
    }
  });

  it('is read without its empty directories', async function () {
    const { store, dir } = newStore(this);
    const contents = { 'ram@0x0': noise(1, 20) };
    const { id } = await save(store, contents);
    store.close();
    rmdirSync(join(dir, 'tags'));
    const read = async (work: (reader: Store) => unknown): Promise<void> => {
      const reader = Store.open(dir, { write: false });
      try {
        await work(reader);
      } finally {
        reader.close();
      }
    };
    await read(async (reader) => {
      assert.deepEqual(await load(reader, id), contents);
      assert.equal(reader.show(id).id, id);
      assert.equal(reader.stats().snapshots, 1);
      assert.deepEqual(await reader.check({ readData: true }), { ok: true, problems: [] });
      await reader.gc({ dryRun: true });
    });
    const writer = Store.open(dir, { write: true });
    writer.remove([id]);
    await writer.gc({ dryRun: false });
    writer.close();
    for (const name of ['packs', 'segments', 'snapshots', 'tags']) rmdirSync(join(dir, name));
    await read(async (reader) => {
      assert.deepEqual(reader.list(), []);
      assert.equal(reader.stats().packs, 0);
      assert.deepEqual(await reader.check({ readData: true }), { ok: true, problems: [] });
      await reader.gc({ dryRun: true });
    });
  });

  it('names the missing pack when packs/ is missing', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 20) });
    store.close();
    rmSync(join(dir, 'packs'), { recursive: true });
    const reader = Store.open(dir, { write: false });
    try {
      assert.throws(() => reader.show(id), { code: 'DAMAGED', message: /packs\/00000001-0/ });
      await assert.rejects(load(reader, id), { code: 'DAMAGED', message: /packs\/00000001-0/ });
      assert.equal((await reader.check({ readData: true })).ok, false);
    } finally {
      reader.close();
    }
  });

  it('gives its files mode 0600 and its directories 0700, whatever the umask', async function () {
    const before = process.umask(0);
    try {
      const { store, dir } = newStore(this);
      await save(store, { 'ram@0x0': noise(1, 40) }, { tag: 'x' });
      assert.equal(statSync(dir).mode & 0o777, 0o700);
      for (const [path, mode] of modes(dir))
        assert.equal(mode, statSync(path).isDirectory() ? '700' : '600', path);
    } finally {
      process.umask(before);
    }
  });

  it('does not tag a snapshot that another process removes meanwhile', async function () {
    const { store, dir } = newStore(this);
    const { id } = await save(store, { 'ram@0x0': noise(1, 3) });
    const other = Store.open(dir, { write: true });
    const resolve = store.resolve.bind(store);
    store.resolve = (ref) => {
      const found = resolve(ref);
      other.remove([found]);
      return found;
    };
    assert.throws(() => store.addTags(id, ['late']), { code: 'NO_SUCH_SNAPSHOT' });
    other.close();
    assert.deepEqual(store.list(), []);
  });

  it('finds a snapshot by tag, ID and unique prefix', async function () {
    const { store } = newStore(this);
    const ids: string[] = [];
    for (let i = 0; i < 17; i++) ids.push((await save(store, { 'ram@0x0': noise(i, 1) })).id); // two share a first digit
    assert.deepEqual(
      store
        .list()
        .map(({ id }) => id)
        .sort(),
      [...ids].sort(),
    );
    assert.equal(store.resolve(ids[3]!), ids[3]);
    assert.equal(store.resolve(ids[3]!.slice(0, 20)), ids[3]);
    assert.throws(() => store.resolve('zebra'), { code: 'NO_SUCH_SNAPSHOT' });
    assert.throws(() => store.resolve(''), { code: 'NO_SUCH_SNAPSHOT' });
    assert.throws(() => store.resolve(`${ids[3]}0`), { code: 'NO_SUCH_SNAPSHOT' });
    const crowded = '0123456789abcdef'
      .split('')
      .find((digit) => ids.filter((id) => id.startsWith(digit)).length > 1)!;
    assert.throws(() => store.resolve(crowded), { code: 'AMBIGUOUS' });

    store.addTags(ids[0]!, ['base']);
    store.addTags(ids[1]!, [crowded]); // a tag wins over a prefix
    assert.equal(store.resolve('base'), ids[0]);
    assert.equal(store.resolve(crowded), ids[1]);
    store.addTags(ids[2]!, ['base']);
    assert.equal(store.resolve('base'), ids[2]);
    assert.deepEqual(store.list().find(({ id }) => id === ids[0])!.tags, []);
    store.addTags('base', ['other']);
    assert.equal(store.resolve('base'), ids[2]);
    assert.equal(store.resolve('other'), ids[2]);
    assert.deepEqual(readdirSync(join(store.dir, 'tags')).sort(), [crowded, 'base', 'other'].sort());
    // A name as long as an ID is always an ID.
    for (const label of [ids[5]!, 'f'.repeat(32), 'F'.repeat(32)]) {
      assert.throws(
        () => store.addTags(ids[0]!, [label]),
        { code: 'USAGE', hint: /looks like a snapshot ID/ },
        label,
      );
      await assert.rejects(save(store, { x: noise(99, 1) }, { tag: label }), { code: 'USAGE' });
    }
    store.addTags(ids[0]!, [ids[5]!.slice(0, 31)]);
    assert.equal(store.resolve(ids[5]!), ids[5]);
    assert.equal(store.resolve(ids[5]!.slice(0, 31)), ids[0]);
    for (const label of ['', '../x', '.hidden', 'a/b', 'x'.repeat(65)])
      assert.throws(() => store.addTags(ids[0]!, [label]), { code: 'USAGE' }, label);
  });

  it('removes all named snapshots, or none', async function () {
    const { store, dir } = newStore(this);
    const a = await save(store, { 'ram@0x0': noise(1, 2) }, { tag: 'a' });
    const b = await save(store, { 'ram@0x0': noise(2, 2) }, { tag: 'b' });
    assert.throws(() => store.remove(['a', 'nothing']), { code: 'NO_SUCH_SNAPSHOT' });
    assert.equal(store.list().length, 2);
    assert.deepEqual(store.remove(['a', a.id]), [{ id: a.id, tags: ['a'] }]);
    assert.deepEqual(
      store.list().map(({ id }) => id),
      [b.id],
    );
    assert.deepEqual(readdirSync(join(dir, 'snapshots')), [b.id]);
    assert.deepEqual(readdirSync(join(dir, 'tags')), ['b']);
  });

  it('reports sizes as they are on disk', async function () {
    const { store, dir } = newStore(this);
    const ram = Buffer.concat([noise(1, 300), textPages(2, 300), Buffer.alloc(1 << 20)]);
    const first = await save(store, { 'ram@0x0': ram });
    ram.set(noise(5, 8), 100 * 4096);
    const second = await save(store, { 'ram@0x0': ram });
    const stats = store.stats();
    store.close();
    const onDisk = diskUsage(dir);
    assert.ok(
      Math.abs(stats.storedBytes + stats.indexBytes - onDisk) <= onDisk / 100,
      `${JSON.stringify(stats)} ${onDisk}`,
    );
    assert.deepEqual(
      [
        stats.snapshots,
        stats.logicalBytes,
        stats.nonZeroBytes,
        stats.chunks,
        stats.uniqueBytes,
        stats.deadBytes,
      ],
      [2, 2 * ram.length, 2 * 600 * 4096, 608, 608 * 4096, 0],
    );

    const reader = Store.open(dir, { write: false });
    const packs = readdirSync(join(dir, 'packs')).map((name) => statSync(join(dir, 'packs', name)).size);
    const files = [first, second].map(({ id }) => statSync(join(dir, 'snapshots', id)).size);
    assert.equal(first.storedBytes, packs[0]! + files[0]!);
    assert.equal(second.storedBytes, packs[1]! + files[1]!);
    assert.deepEqual(
      reader.list().map(({ storedBytes }) => storedBytes),
      [first.storedBytes, second.storedBytes],
    );

    // rm and gc free uniqueBytes.
    const { uniqueBytes, regions, machine } = reader.show(second.id);
    reader.close();
    assert.deepEqual(regions, [
      { name: 'ram@0x0', sizeBytes: ram.length, nonZeroPages: 600, changedPages: null },
    ]);
    assert.deepEqual(machine, { cpus: 1 });
    const writer = Store.open(dir, { write: true });
    const before = packs.reduce((a, b) => a + b) + files.reduce((a, b) => a + b);
    writer.remove([second.id]);
    await writer.gc({ dryRun: false });
    writer.close();
    const after = ['packs', 'snapshots'].flatMap((folder) =>
      readdirSync(join(dir, folder)).map((name) => statSync(join(dir, folder, name)).size),
    );
    assert.ok(Math.abs(before - after.reduce((a, b) => a + b) - uniqueBytes) < uniqueBytes / 50);
  });

  it('can be read when it was moved, copied, or mounted read-only', async function () {
    const { store, dir } = newStore(this);
    const ram = { 'ram@0x0': noise(3, 50) };
    const { id } = await save(store, ram, { tag: 'x' });
    const put = await store.put(join(dir, 'lock'), { tags: ['file'], name: null });

    const readAll = async (at: string): Promise<void> => {
      const reader = Store.open(at, { write: false });
      try {
        assert.deepEqual(
          reader.list().map(({ id }) => id),
          [id, put.id],
        );
        assert.equal(reader.resolve('x'), id);
        assert.equal(reader.show('x').regions.length, 1);
        assert.equal(reader.stats().snapshots, 2);
        assert.deepEqual(await load(reader, 'x'), ram);
        assert.deepEqual(await reader.check({ readData: true }), { ok: true, problems: [] });
        await reader.get('file', join(dir, '..', 'got'));
        assert.equal((await reader.gc({ dryRun: true })).removedChunks, 0);
        await assert.rejects(reader.beginSave({ regions: [] }), { code: 'READ_ONLY' });
        assert.throws(() => reader.remove([id]), { code: 'READ_ONLY' });
        assert.throws(() => reader.addTags(id, ['y']), { code: 'READ_ONLY' });
        await assert.rejects(reader.gc({ dryRun: false }), { code: 'READ_ONLY' });
      } finally {
        reader.close();
      }
    };

    // Copied while it is open: the last commits are only in SQLite's log.
    store.addTags(id, ['old']);
    store.addTags(id, ['x']);
    assert.ok(statSync(join(dir, 'store.db-wal')).size > 0);
    const copy = join(scratchDir(this), 'copy');
    cpSync(dir, copy, { recursive: true });
    await readAll(copy);

    store.close();
    const moved = join(scratchDir(this), 'moved');
    renameSync(dir, moved);
    mkdirSync(dir); // the parent of ../got
    await readAll(moved);

    const unclean = join(scratchDir(this), 'unclean');
    const earlier = Store.open(moved, { write: true });
    earlier.addTags(id, ['old']);
    earlier.close();
    const again = Store.open(moved, { write: true });
    again.addTags(id, ['x']); // only in SQLite's log
    cpSync(moved, unclean, { recursive: true });
    again.close();
    assert.ok(existsSync(join(unclean, 'store.db-wal')));
    for (const target of [moved, unclean]) {
      mountReadOnly(this, target);
      assert.throws(() => writeFileSync(join(target, 'probe'), ''), { code: 'EROFS' });
      assert.throws(() => Store.open(target, { write: true }), { code: 'READ_ONLY' });
      await readAll(target);
    }
  });

  it('is created once when several processes create it at the same time', async function () {
    const scratch = scratchDir(this);
    const file = join(scratch, 'file');
    writeFileSync(file, noise(1, 3));
    for (let round = 0; round < 4; round++) {
      const dir = join(scratch, `some/folders/${round}`);
      const go = join(scratch, `go${round}`);
      const children = Array.from({ length: 3 }, () =>
        spawn(process.execPath, [savingChild, dir, 'race', file, go], {
          stdio: ['ignore', 'pipe', 'inherit'],
        }),
      );
      await Promise.all(children.map((child) => once(child.stdout!, 'data')));
      writeFileSync(go, '');
      const statuses = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
      assert.deepEqual(statuses, [0, 0, 0]);
      const store = Store.open(dir, { write: false });
      assert.equal(store.list().length, 3);
      store.close();
    }
  });

  it('is not changed by opening for reading and listing', async function () {
    const { store, dir } = newStore(this);
    await save(store, { 'ram@0x0': noise(3, 5) });
    store.close();
    const snapshotOf = (): unknown =>
      modes(dir).map(([path]) => [
        path,
        statSync(path).size,
        statSync(path).isDirectory() || statSync(path).mtimeMs,
      ]);
    const before = snapshotOf();
    const reader = Store.open(dir, { write: false });
    reader.list();
    reader.close();
    assert.deepEqual(snapshotOf(), before);
  });
});
