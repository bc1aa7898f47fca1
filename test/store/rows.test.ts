/** An untrusted index: its rows are checked before they are used. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { LivesnapError } from '../../src/errors.js';
import { packFile, tagFile } from '../../src/store/disk/layout.js';
import { APPLICATION_ID } from '../../src/store/index/schema.js';
import { segmentFile } from '../../src/store/segment/segment-file.js';
import { snapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import { Database } from '../sqlite.js';
import { dropScratch, load, newStore, noise, onDrop, save, scratchDir } from './scratch.js';

/** Writes to the index of a store as another program can: SQLite does not enforce the constraints of the schema. */
function forge(dir: string, ...statements: string[]): void {
  const database = new Database(join(dir, 'store.db'));
  database.pragma('ignore_check_constraints = ON');
  database.pragma('foreign_keys = OFF');
  for (const statement of statements) database.exec(statement);
  database.close();
}

const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;
const digestOf = (label: string, id: string): string =>
  createHash('sha256').update(`${label} ${id}`).digest('hex').slice(0, 16);
const tagRow = (label: string, id: string): string =>
  `INSERT INTO tags VALUES (${[label, id, digestOf(label, id)].map(quoted).join(', ')})`;
/** Copies the row of the first snapshot, with some columns changed. */
const snapshotRow = (over: Record<string, string>): string => {
  const columns = ['id', 'kind', 'vm', 'parent', 'createdAt', 'memoryBytes', 'diskBytes', 'storedBytes'];
  columns.push('logicalBytes', 'nonZeroPages', 'labels', 'pauseMs');
  const values = columns.map((column) => over[column] ?? column);
  return `INSERT INTO snapshots SELECT ${values.join(', ')} FROM snapshots LIMIT 1`;
};
const other = quoted('cd'.repeat(16));

/** Every file below a directory with its contents, except those of one folder. */
const treeOf = (dir: string, except: string): [string, string][] =>
  readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => except === '' || (name !== except && !name.startsWith(`${except}/`)))
    .sort()
    .map((name) => {
      const path = join(dir, name);
      return [name, statSync(path).isDirectory() ? '' : readFileSync(path, 'latin1')];
    });

const forgeries: Record<string, [table: string, statement: (id: string) => string[]]> = {
  'a tag that is a path': ['tags', (id) => ['DELETE FROM tags', tagRow('../../victim/keys', id)]],
  'a tag that is a path to a new file': ['tags', (id) => ['DELETE FROM tags', tagRow('../../new', id)]],
  'a tag that looks like an ID': ['tags', (id) => ['DELETE FROM tags', tagRow('ab'.repeat(16), id)]],
  'a tag that looks like a temporary file': ['tags', (id) => ['DELETE FROM tags', tagRow('x.tmp', id)]],
  'a tag whose snapshot is a path': ['tags', () => ['DELETE FROM tags', tagRow('evil', '../../victim/keys')]],
  'a tag of a missing snapshot': ['tags', () => ['DELETE FROM tags', tagRow('evil', 'ef'.repeat(16))]],
  'an ID that is a path': ['snapshots', () => [snapshotRow({ id: quoted('../../victim/keys') })]],
  'an ID that begins with digits and is a path': [
    'snapshots',
    () => [snapshotRow({ id: quoted('abc/../../../victim/keys') })],
  ],
  'only an ID that is a path': [
    'snapshots',
    (id) => [`UPDATE snapshots SET id = ${quoted(`x\nssh-rsa\n/../${id}`)}`, 'DELETE FROM tags'],
  ],
  'a tag and an ID that form a path together': [
    'snapshots',
    (id) => {
      const text = `x\nssh-rsa AAAA\n/../${id}`;
      return [
        `UPDATE snapshots SET id = ${quoted(text)}`,
        'DELETE FROM tags',
        tagRow('../../victim/keys', text),
      ];
    },
  ],
  'an ID with control characters': [
    'snapshots',
    () => [snapshotRow({ id: "char(27) || ']0;x' || char(7)" })],
  ],
  'an unknown kind': ['snapshots', () => [snapshotRow({ id: other, kind: "'x'" })]],
  'a parent that is a path': ['snapshots', () => [snapshotRow({ id: other, parent: "'../x'" })]],
  'an invalid date': ['snapshots', () => [snapshotRow({ id: other, createdAt: "'never'" })]],
  'a negative size': ['snapshots', () => [snapshotRow({ id: other, memoryBytes: '-1' })]],
  'a size of 2^60': ['snapshots', () => [snapshotRow({ id: other, storedBytes: `${2n ** 60n}` })]],
  'labels that are not JSON': ['snapshots', () => ["UPDATE snapshots SET labels = '{'"]],
  'labels that are a list': ['snapshots', () => ["UPDATE snapshots SET labels = '[]'"]],
  'a label with a control character': [
    'snapshots',
    () => ["UPDATE snapshots SET labels = json_object('k', char(27))"],
  ],
  'a negative pause': ['snapshots', () => ['UPDATE snapshots SET pauseMs = -1']],
  'an infinite pause': ['snapshots', () => ['UPDATE snapshots SET pauseMs = 9e999']],
  'pack 0': ['packs', () => ['INSERT INTO packs VALUES (0, 0, 1, 100, 0, NULL)']],
  'a pack number beyond 32 bits': [
    'packs',
    () => [`INSERT INTO packs VALUES (${2n ** 40n}, 0, 1, 100, 0, NULL)`],
  ],
  'a negative generation': ['packs', () => ['INSERT INTO packs VALUES (77, -1, 1, 100, 0, NULL)']],
  'a generation of a billion': [
    'packs',
    () => ['INSERT INTO packs VALUES (77, 1000000000, 1, 100, 0, NULL)'],
  ],
  'a pack without chunks': ['packs', () => ['INSERT INTO packs VALUES (77, 0, 0, 100, 0, NULL)']],
  'a pack with too many chunks': ['packs', () => ['INSERT INTO packs VALUES (77, 0, 32769, 100, 0, NULL)']],
  'a pack of 2^50 bytes': ['packs', () => [`INSERT INTO packs VALUES (77, 0, 1, ${2n ** 50n}, 0, NULL)`]],
  'a run of check of 2^63 - 1': ['packs', () => [`UPDATE packs SET readRun = ${2n ** 63n - 1n}`]],
  'a pack verified at no time': ['packs', () => ["UPDATE packs SET verifiedAt = 'never'"]],
  'a segment number beyond 32 bits': ['segments', () => [`INSERT INTO segments VALUES (${2n ** 33n}, 1)`]],
  'a segment with a negative size': ['segments', () => ['INSERT INTO segments VALUES (77, -5)']],
  'no next number': ['counters', () => ['DELETE FROM counters']],
  'a next number of 2^40': ['counters', () => [`UPDATE counters SET value = ${2n ** 40n}`]],
  'a next number of 0': ['counters', () => ['UPDATE counters SET value = 0']],
};

describe('an untrusted index', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const verbs: Record<string, (store: Store, id: string) => unknown> = {
    ls: (store) => store.list(),
    'tag evil': (store) => store.addTags('evil', ['else']),
    'tag id': (store, id) => store.addTags(id, ['else']),
    'rm evil': (store) => store.remove(['evil']),
    'rm abc': (store) => store.remove(['abc']),
    'rm id': (store, id) => store.remove([id]),
    'show id': (store, id) => store.show(id),
    stats: (store) => store.stats(),
    save: (store) => save(store, { x: noise(2, 3) }, { tag: 'mine' }),
    tidy: (store) => store.tidy(),
    'gc --dry-run': (store) => store.gc({ dryRun: true }),
    gc: (store) => store.gc({ dryRun: false }),
  };

  for (const [what, [table, statements]] of Object.entries(forgeries))
    it(`with ${what} causes no harm, is reported by check and rebuilt by repair`, async function () {
      const world = scratchDir(this);
      const { store: made, dir: forged } = newStore(this);
      const { id } = await save(made, { x: noise(1, 5) }, { tag: 'good' });
      await save(made, { x: noise(3, 5) }, { tag: 'removed' });
      made.remove(['removed']);
      made.close();
      forge(forged, ...statements(id));
      mkdirSync(join(world, 'victim'));
      writeFileSync(join(world, 'victim', 'keys'), 'mine');
      const before = treeOf(world, 'store');
      const dir = join(world, 'store');
      const fresh = (): void => {
        rmSync(dir, { recursive: true, force: true });
        cpSync(forged, dir, { recursive: true });
      };

      const told: Record<string, string> = {};
      for (const [verb, work] of Object.entries(verbs)) {
        fresh();
        const store = Store.open(dir, { write: true });
        try {
          await work(store, id);
        } catch (error) {
          assert.ok(error instanceof LivesnapError, `${verb}: ${(error as Error).stack}`);
          assert.ok(['DAMAGED', 'NO_SUCH_SNAPSHOT'].includes(error.code), `${verb}: ${error.stack}`);
          told[verb] = error.message;
        } finally {
          store.close();
        }
        assert.deepEqual(treeOf(world, 'store'), before, verb);
      }
      assert.match(told.gc ?? '', new RegExp(`store\\.db.*${table}`));
      // A verb that reads the row names its table.
      if (told.ls !== undefined) assert.match(told.ls, new RegExp(`store\\.db.*${table}`));
      assert.doesNotMatch(Object.values(told).join(), /\p{Cc}/u);
      for (const folder of ['packs', 'snapshots', 'segments', 'tags'])
        assert.deepEqual(readdirSync(join(dir, folder)), readdirSync(join(forged, folder)), folder);

      const checked = Store.open(dir, { write: false });
      const { problems } = await checked.check({ readData: true });
      checked.close();
      assert.ok(
        problems.some(({ file, message }) => file === 'store.db' && message.includes(`the table ${table}`)),
        JSON.stringify(problems),
      );
      assert.deepEqual(treeOf(world, 'store'), before);

      await Store.repair(dir);
      const repaired = Store.open(dir, { write: true });
      onDrop(this, () => repaired.close());
      assert.deepEqual(await repaired.check({ readData: true }), { ok: true, problems: [] });
      assert.deepEqual(
        repaired.list().map((row) => [row.id, row.tags]),
        [[id, ['good']]],
      );
      assert.deepEqual(await load(repaired, 'good'), { x: noise(1, 5) });
      await repaired.gc({ dryRun: false });
      assert.deepEqual(treeOf(world, 'store'), before);
    });

  for (const folder of ['packs', 'snapshots', 'segments', 'tags'])
    it(`can be read but not written if ${folder} is a link`, async function () {
      const world = scratchDir(this);
      const { store, dir } = newStore(this);
      await save(store, { x: noise(1, 5) }, { tag: 'good' });
      store.close();
      const victim = join(world, 'victim');
      cpSync(join(dir, folder), victim, { recursive: true });
      for (const name of ['notes', 'draft.tmp', '000000ff-0.pack', '000000ff.seg', 'ef'.repeat(16)])
        writeFileSync(join(victim, name), 'mine');
      rmSync(join(dir, folder), { recursive: true });
      symlinkSync(victim, join(dir, folder));
      const before = treeOf(world, '');
      assert.throws(() => Store.open(dir, { write: true }), { code: 'NOT_A_STORE', message: /is a link/ });
      await assert.rejects(Store.repair(dir), { code: 'NOT_A_STORE' });
      const reader = Store.open(dir, { write: false });
      assert.deepEqual(await load(reader, 'good'), { x: noise(1, 5) });
      reader.close();
      assert.deepEqual(treeOf(world, ''), before);
    });
});

/** A table and a trigger that livesnap did not make. */
const foreignTables = [
  'CREATE TABLE passengers (x)',
  "CREATE TRIGGER t AFTER INSERT ON passengers BEGIN INSERT INTO passengers VALUES ('ran'); END",
];

describe('the number of a run of check', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const last of [2n ** 32n - 1n, 2n ** 63n - 1n])
    it(`starts again after ${last}`, async function () {
      const { store, dir } = newStore(this);
      for (const seed of [1, 2]) await save(store, { x: noise(seed, 5) });
      store.close();
      forge(dir, `UPDATE packs SET readRun = ${last} WHERE number = 1`);
      const again = Store.open(dir, { write: true });
      await again.check({ readData: true });
      assert.deepEqual(await again.check({ readData: true }), { ok: true, problems: [] });
      again.close();
      const database = new Database(join(dir, 'store.db'));
      assert.deepEqual(database.prepare('SELECT DISTINCT readRun FROM packs').pluck().all(), [2]);
      database.close();
    });
});

describe('an untrusted schema', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const schemas: Record<string, [code: string, statements: string[]]> = {
    'no tables and a negative version': ['NOT_A_STORE', ['PRAGMA user_version = -1']],
    'no tables and no version': ['NOT_A_STORE', []],
    'a foreign table and no version': ['NOT_A_STORE', foreignTables],
    'a foreign table and a negative version': ['NOT_A_STORE', [...foreignTables, 'PRAGMA user_version = -1']],
    'a foreign table and this version': ['DAMAGED', [...foreignTables, 'PRAGMA user_version = 1']],
    'no tables and this version': ['DAMAGED', ['PRAGMA user_version = 1']],
  };
  for (const [what, [code, statements]] of Object.entries(schemas))
    for (const write of [false, true])
      it(`with ${what} is refused and left unchanged (${write ? 'writing' : 'reading'})`, function () {
        const { store, dir } = newStore(this);
        store.close();
        const path = join(dir, 'store.db');
        rmSync(path);
        const database = new Database(path);
        database.pragma(`application_id = ${APPLICATION_ID}`);
        for (const statement of statements) database.exec(statement);
        database.close();
        const before = readFileSync(path);
        // An interrupted creation leaves an empty database as well, but without application_id.
        for (const create of [false, true])
          assert.throws(() => Store.open(dir, { write, create }), { code }, what);
        assert.deepEqual(readFileSync(path), before);
      });

  const rootOf = (name: string): string => `(SELECT rootpage FROM sqlite_schema WHERE name = '${name}')`;
  for (const [what, root, name] of [
    ['two tables', rootOf('packs'), 'segments'],
    ['an index and a table', rootOf('packs'), 'tagsOfSnapshot'],
    ['a table and the schema', '1', 'segments'],
  ] as const)
    for (const write of [false, true])
      it(`in which ${what} share a root page is refused (${write ? 'writing' : 'reading'})`, async function () {
        const { store, dir } = newStore(this);
        const { id } = await save(store, { ram: noise(1, 20) });
        store.close();
        const database = new Database(join(dir, 'store.db'));
        database.unsafeMode(true);
        database.pragma('writable_schema = ON');
        const { changes } = database
          .prepare(`UPDATE sqlite_schema SET rootpage = ${root} WHERE name = ?`)
          .run(name);
        assert.equal(changes, 1);
        database.close();
        assert.throws(() => Store.open(dir, { write }), { code: 'DAMAGED' });
        await Store.repair(dir);
        const repaired = Store.open(dir, { write: true });
        onDrop(this, () => repaired.close());
        await load(repaired, id);
      });

  it('that a crash left empty is completed by a writer and refused by a reader', function () {
    const { store, dir } = newStore(this);
    store.close();
    const path = join(dir, 'store.db');
    rmSync(path);
    const database = new Database(path);
    database.pragma('journal_mode = WAL');
    database.close();
    const before = readFileSync(path);
    assert.throws(() => Store.open(dir, { write: false }), { code: 'NOT_A_STORE' });
    assert.deepEqual(readFileSync(path), before);
    Store.open(dir, { write: true }).close();
    Store.open(dir, { write: false }).close();
  });
});

describe('the path of a file of a store', () => {
  it('is formed only from valid IDs, tags and numbers', () => {
    const id = 'ab'.repeat(16);
    assert.equal(snapshotFile(id), `snapshots/${id}`);
    assert.equal(packFile(0x2a, 3), 'packs/0000002a-3.pack');
    assert.equal(segmentFile(0x2b), 'segments/0000002b.seg');
    assert.equal(tagFile('a.b'), 'tags/a.b');
    for (const bad of ['', '..', '../x', `${id}\n`, id.toUpperCase(), `${id}0`])
      assert.throws(() => snapshotFile(bad), { code: 'ERR_ASSERTION' }, bad);
    for (const bad of ['', '..', '../x', 'a/b', 'a\n', 'x.tmp', id])
      assert.throws(() => tagFile(bad), { code: 'ERR_ASSERTION' }, bad);
    for (const bad of [-1, 2 ** 32, 1.5, Number.NaN]) {
      assert.throws(() => packFile(bad, 0), { code: 'ERR_ASSERTION' }, `${bad}`);
      assert.throws(() => packFile(1, bad), { code: 'ERR_ASSERTION' }, `${bad}`);
      assert.throws(() => segmentFile(bad), { code: 'ERR_ASSERTION' }, `${bad}`);
    }
    assert.throws(() => packFile('../x' as unknown as number, 0), { code: 'ERR_ASSERTION' });
  });
});
