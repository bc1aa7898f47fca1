/** Exports and imports through the command line, with hostile directories. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { probe, requireKvm } from '../kvm/kvm.js';
import { Database } from '../sqlite.js';
import { noise, textPages } from '../store/scratch.js';
import { World } from './cli.js';
import { type Copied, contents, put, writeFile } from './stored-files.js';

describe('livesnap export', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('makes a directory that can be moved and imported, or leaves nothing behind', async () => {
    const bytes = Buffer.concat([noise(1, 100), Buffer.from('a short end')]);
    const id = await put(world, 'a', bytes);
    await put(world, 'b', textPages(1, 50));
    const exported = join(world.dir, 'exported');
    await world.json('export', 'a', exported);
    assert.deepEqual(readdirSync(join(exported, 'snapshots')), [id]);
    assert.ok(!existsSync(`${exported}.partial`));
    await world.fails(2, 'USAGE', ['export', 'a', exported]);
    await world.fails(2, 'USAGE', ['export', 'a', writeFile(world, 'plain', Buffer.alloc(3))]);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['export', 'none', join(world.dir, 'x')]);

    execFileSync('tar', ['-C', world.dir, '-cf', join(world.dir, 'x.tar'), 'exported']);
    const elsewhere = join(world.dir, 'elsewhere');
    mkdirSync(elsewhere);
    execFileSync('tar', ['-C', elsewhere, '-xf', join(world.dir, 'x.tar')]);
    const moved = join(elsewhere, 'exported');
    assert.deepEqual(await contents(world, moved, 'a'), bytes);
    const mine = join(world.dir, 'mine');
    assert.equal((await world.json<Copied>('import', moved, '--store', mine)).sentChunks, 101);
    assert.equal((await world.json<Copied>('import', moved, '--store', mine)).sentChunks, 0);
    assert.deepEqual(await contents(world, mine, id), bytes);
    assert.deepEqual(await world.json('check', '--read-data', '--store', mine), { ok: true, problems: [] });

    // Its working directory, or no name at all, is no place for an export.
    await world.fails(2, 'USAGE', ['export', 'a', '']);
    await world.fails(2, 'USAGE', ['import', '']);
    await world.fails(2, 'USAGE', ['export', 'a', process.cwd()]);

    // A .partial that no export made is refused and stays.
    renameSync(exported, `${exported}.partial`);
    await world.fails(2, 'USAGE', ['export', 'b', exported]);
    assert.deepEqual(readdirSync(join(`${exported}.partial`, 'snapshots')), [id]);
    assert.ok(!existsSync(exported));
  });

  it('is enough to restore a machine', async function () {
    requireKvm(this);
    await world.json(
      ...['start', '--kernel', probe('probe.bzImage'), '--memory', '64M', '--detach', '--name', 'a'],
    );
    const tick = await world.ask('a', '', /^TICK \d+ nonce=[0-9a-f]{16}$/);
    const nonce = /nonce=[0-9a-f]{16}/.exec(tick)![0];
    const { id } = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
    const stick = join(world.dir, 'stick');
    await world.json('export', id, stick);
    rmSync(world.store, { recursive: true });
    await world.json('restore', stick, '--detach', '--name', 'b');
    assert.match(await world.ask('b', '', /^TICK \d+ nonce=[0-9a-f]{16}$/), new RegExp(nonce));
    // The next save goes to the default store, which lacks the parent, so it is a full one.
    const saved = await world.json<{ parent: string | null }>('save', 'b');
    assert.equal(saved.parent, null);
    await world.json('stop', 'b');
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['restore', join(world.dir, 'nowhere')]);
  });
});

describe('livesnap import', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('refuses a hostile directory with the reason, and changes nothing', async () => {
    await put(world, 'a', noise(1, 40));
    const good = join(world.dir, 'good');
    await world.json('export', 'a', good);
    const secret = writeFile(world, 'secret', Buffer.from('root:x:0:0'));
    const before = readFileSync(secret);
    const [pack] = readdirSync(join(good, 'packs')) as [string];
    const [snapshot] = readdirSync(join(good, 'snapshots')) as [string];
    const hostile: Record<string, [code: string, harm: (dir: string) => void]> = {
      'a pack that is a link': [
        'NOT_A_STORE',
        (dir) => {
          unlinkSync(join(dir, 'packs', pack));
          symlinkSync(secret, join(dir, 'packs', pack));
        },
      ],
      'a folder that is a link': [
        'NOT_A_STORE',
        (dir) => {
          rmSync(join(dir, 'tags'), { recursive: true });
          symlinkSync(world.dir, join(dir, 'tags'));
        },
      ],
      'an index that is a link': [
        'NOT_A_STORE',
        (dir) => {
          unlinkSync(join(dir, 'store.db'));
          symlinkSync(join(world.store, 'store.db'), join(dir, 'store.db'));
        },
      ],
      'a FIFO': [
        'NOT_A_STORE',
        (dir) => void execFileSync('mkfifo', [join(dir, 'packs', '000000ff-0.pack')]),
      ],
      'a name that no store has': ['NOT_A_STORE', (dir) => writeFileSync(join(dir, 'packs', '..evil'), '')],
      'a file beside the index': ['NOT_A_STORE', (dir) => linkSync(secret, join(dir, 'passwd'))],
      'a pack of 8 GiB of nothing': [
        'NOT_A_STORE',
        (dir) => truncateSync(join(dir, 'packs', pack), 8 * 2 ** 30),
      ],
      'a snapshot of 2 GiB of nothing': [
        'NOT_A_STORE',
        (dir) => truncateSync(join(dir, 'snapshots', snapshot), 2 ** 31),
      ],
      'a huge index': ['NOT_A_STORE', (dir) => truncateSync(join(dir, 'store.db'), 2 ** 27)],
      'a truncated pack': ['DAMAGED', (dir) => truncateSync(join(dir, 'packs', pack), 3000)],
      'a snapshot with huge counts': [
        'DAMAGED',
        (dir) => {
          const bytes = readFileSync(join(dir, 'snapshots', snapshot));
          bytes.writeUInt32LE(0xffffffff, 16);
          writeFileSync(join(dir, 'snapshots', snapshot), bytes);
        },
      ],
      'a frame with a flipped bit': [
        'DAMAGED',
        (dir) => {
          const bytes = readFileSync(join(dir, 'packs', pack));
          bytes[9000]! ^= 1;
          writeFileSync(join(dir, 'packs', pack), bytes);
        },
      ],
      'a trigger in the index': [
        'DAMAGED',
        (dir) => {
          const database = new Database(join(dir, 'store.db'));
          database.exec(
            'CREATE VIEW evil AS SELECT 1; CREATE TRIGGER t AFTER INSERT ON packs BEGIN SELECT 1; END',
          );
          database.close();
        },
      ],
      'an ID in the index that is a path': [
        'DAMAGED',
        (dir) => {
          const database = new Database(join(dir, 'store.db'));
          database.pragma('ignore_check_constraints = ON');
          database.pragma('foreign_keys = OFF');
          database.exec(
            `UPDATE snapshots SET id = '../packs/${pack}'; UPDATE tags SET snapshot = '../packs/${pack}'`,
          );
          database.close();
        },
      ],
      'an index of random bytes': ['DAMAGED', (dir) => writeFileSync(join(dir, 'store.db'), noise(1, 3))],
      'a missing index': ['NOT_A_STORE', (dir) => unlinkSync(join(dir, 'store.db'))],
    };
    const mine = join(world.dir, 'mine');
    await world.json('import', good, '--store', mine);
    const sound = await world.json('ls', '--store', mine);
    for (const [what, [code, harm]] of Object.entries(hostile)) {
      const dir = join(world.dir, 'hostile');
      rmSync(dir, { recursive: true, force: true });
      cpSync(good, dir, { recursive: true });
      harm(dir);
      const fresh = join(world.dir, `fresh-${Object.keys(hostile).indexOf(what)}`);
      const ran = await world.run(['import', dir, '--store', fresh, '--json']);
      assert.equal(JSON.parse(ran.stdout).error?.code, code, `${what}: ${ran.stdout}${ran.stderr}`);
      if (existsSync(fresh)) assert.deepEqual(await world.json('ls', '--store', fresh), [], what);
    }
    assert.deepEqual(await world.json('ls', '--store', mine), sound);
    assert.deepEqual(readFileSync(secret), before);
    await world.fails(3, 'NO_SUCH_FILE', ['import', join(world.dir, 'nowhere')]);
    await world.fails(1, 'NOT_A_STORE', ['import', secret]);
  });
});
