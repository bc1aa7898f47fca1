/** The verbs of the store and of its snapshots, on stored files. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Recompression } from '../../src/store/gc/gc.js';
import { flipBit, textPages } from '../store/scratch.js';
import { ending, World } from './cli.js';
import { type Listed, SAVE_KEYS, type Saved, type Tagged } from './saved.js';

describe('a store', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('lists, shows, tags and removes snapshots, and frees their data', async () => {
    const file = join(world.dir, 'file.bin');
    const bytes = Buffer.concat([
      Buffer.alloc(100_000, 'text '),
      Buffer.alloc(1 << 20),
      readFileSync(process.execPath).subarray(0, 3_000_001),
    ]);
    writeFileSync(file, bytes);
    const put = await world.json<Saved>('put', file, '--tag', 'one');
    assert.deepEqual(Object.keys(put), SAVE_KEYS);
    const again = await world.run(['put', file]);
    assert.match(again.stdout, /^[0-9a-f]{32}\n$/);
    const copy = join(world.dir, 'copy.bin');
    assert.deepEqual(await world.json('get', 'one', copy), { bytes: bytes.length });
    assert.deepEqual(readFileSync(copy), bytes);
    assert.deepEqual(await world.json('tag', 'one', 'two'), {
      id: put.id,
      tags: ['one', 'two'],
      movedTags: [],
    });
    assert.deepEqual(await world.json('untag', 'one'), { removed: [{ tag: 'one', id: put.id }] });
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['show', 'one']);
    await world.fails(3, 'NO_SUCH_TAG', ['untag', 'one']);
    const [first, second, ...rest] = await world.json<Record<string, unknown>[]>('ls');
    assert.deepEqual(rest, []);
    assert.deepEqual(
      Object.keys(first!),
      'id tags kind vm parent createdAt memoryBytes diskBytes storedBytes labels pauseMs'.split(' '),
    );
    assert.deepEqual([first!.tags, first!.kind, first!.vm], [['two'], 'file', 'file.bin']);
    assert.equal(second!.id, again.stdout.trim());
    const shown = await world.json<Record<string, unknown>>('show', 'two');
    assert.deepEqual(Object.keys(shown), [
      ...Object.keys(first!),
      'regions',
      'uniqueBytes',
      'verifiedAt',
      'machine',
      'host',
    ]);
    const stats = await world.json<Record<string, number>>('stats');
    assert.deepEqual(
      Object.keys(stats),
      'snapshots logicalBytes nonZeroBytes uniqueBytes storedBytes indexBytes deadBytes chunks packs packBytes verifiedBytes verifiedAt ratio'.split(
        ' ',
      ),
    );
    assert.equal(stats.snapshots, 2);
    await world.fails(2, 'USAGE', ['restore', 'two', '--detach']);
    assert.deepEqual(await world.json('rm', 'two', String(second!.id)), {
      removed: [
        { id: put.id, tags: ['two'] },
        { id: second!.id, tags: [] },
      ],
    });
    const would = await world.json<{ removedChunks: number }>('gc', '--dry-run');
    assert.ok(would.removedChunks > 0);
    const did = await world.json<{ removedChunks: number; freedBytes: number }>('gc');
    assert.deepEqual(Object.keys(did), ['removedChunks', 'freedBytes']);
    assert.equal(did.removedChunks, would.removedChunks);
    const left = await world.json<Record<string, number>>('stats');
    assert.ok(left.storedBytes! + left.indexBytes! < 1 << 20);
    assert.deepEqual(await world.json('check'), { ok: true, problems: [] });
  });

  it('shows sizes and counts in stats and gc', async () => {
    const file = join(world.dir, 'page');
    writeFileSync(file, Buffer.alloc(4096, 'page '));
    const { stdout, stderr } = await world.run(['put', file]);
    assert.match(
      stderr,
      /^Saved 4 KiB in [\d.]+ m?s\nPages: 1 new, 0 deduplicated, 0 unchanged, 0 zero\nStored: /,
    );
    const stats = (await world.run(['stats'])).stdout;
    assert.match(stats, /^Unique data {2,}4 KiB in 1 chunk$/m);
    assert.match(stats, /^Stored, compressed {2}.* in 1 pack$/m);
    assert.match(stats, /^Reclaimable {2,}0 B$/m);
    assert.equal((await world.run(['rm', stdout.trim()])).stdout, `Removed ${stdout}`);
    assert.match((await world.run(['gc', '--dry-run'])).stdout, /^Would free \d+ B \(\d+ chunks\)\n$/);
    assert.match((await world.run(['gc'])).stdout, /^Freed \d+ B \(\d+ chunks\)\n$/);
  });

  it('recompresses packs once, and says what a run did, would do, and left', async () => {
    const file = join(world.dir, 'text');
    for (const seed of [1, 2]) {
      writeFileSync(file, textPages(seed, 900));
      await world.run(['put', file]);
    }
    const would = await world.run(['gc', '--recompress', '--dry-run']);
    const sentence = /^Would free about \d+ KiB\nWould recompress 2 packs: [\d.]+ MiB to about [\d.]+ MiB\n$/;
    assert.match(would.stdout, sentence);
    const did = await world.json<{ freedBytes: number; recompressed: Recompression }>(
      ...['gc', '--recompress', '--max-repack', '1M'],
    );
    assert.deepEqual(Object.keys(did), ['removedChunks', 'freedBytes', 'recompressed']);
    const { packs, beforeBytes, afterBytes, leftPacks } = did.recompressed;
    assert.ok(packs === 1 && afterBytes < beforeBytes, JSON.stringify(did));
    assert.deepEqual(leftPacks, { held: 0, damaged: 0, noSpace: 0, overLimit: 1, interrupted: 0 });
    const rest = await world.run(['gc', '--recompress']);
    assert.match(rest.stdout, /^Freed \d+ KiB\nRecompressed 1 pack: \d+ KiB to \d+ KiB\n$/);
    assert.equal((await world.run(['gc', '--recompress'])).stdout, 'Freed 0 B\nRecompressed 0 packs\n');
    assert.deepEqual(await world.json('check', '--read-data'), { ok: true, problems: [] });
  });

  it('leaves a damaged pack, with the exit status of damage', async () => {
    const file = join(world.dir, 'text');
    writeFileSync(file, textPages(1, 400));
    await world.run(['put', file]);
    const [pack] = readdirSync(join(world.store, 'packs'));
    flipBit(join(world.store, 'packs', pack!), 5000);
    const { status, stdout } = await world.run(['gc', '--recompress']);
    assert.equal(status, 4);
    assert.equal(stdout, 'Freed 0 B\nRecompressed 0 packs\nLeft unchanged: 1 pack (damaged)\n');
  });

  it('refuses to recompress without LZ4-HC', async () => {
    await world.run(['put', '/etc/hostname']);
    world.env.LIVESNAP_NATIVE_PAGES = '0';
    const { message } = await world.fails(1, 'SYSTEM', ['gc', '--recompress']);
    assert.equal(message, 'recompressing needs LZ4-HC, which only the C++ addon has');
    assert.equal((await world.run(['gc'])).status, 0);
  });

  it('stops after the current pack at SIGINT, and keeps what is done', async () => {
    const file = join(world.dir, 'noise');
    for (const seed of [1, 2, 3]) {
      writeFileSync(file, textPages(seed, 8000));
      await world.run(['put', file, '--tag', `t${seed}`]);
    }
    const packs = (): string[] => readdirSync(join(world.store, 'packs')).sort();
    const [first] = packs() as [string];
    const child = world.spawn('gc', '--recompress');
    const ended = ending(child);
    while (!packs().includes(first.replace('-0.', '-1.'))) await setImmediate();
    child.kill('SIGINT');
    const { stdout, stderr } = await ended;
    assert.equal(child.signalCode, 'SIGINT');
    assert.equal(stderr, 'Stopping after the current pack.\n');
    assert.match(stdout, /^Recompressed 1 pack: .*\nLeft unchanged: 2 packs \(interrupted\)$/m);
    assert.deepEqual(
      packs().map((name) => name.slice(8)),
      ['-1.pack', '-0.pack', '-0.pack'],
    );
    assert.deepEqual(await world.json('check', '--read-data'), { ok: true, problems: [] });
  });

  it('names the snapshot that a tag is moved from', async () => {
    const short = (id: string) => id.slice(0, 12);
    const put = async (...options: string[]) => world.run(['put', '/etc/hostname', ...options]);
    const first = (await put('--tag', 'first')).stdout.trim();
    const again = await put('--tag', 'first');
    const second = again.stdout.trim();
    assert.match(
      again.stderr,
      new RegExp(`^Tagged ${short(second)} as first \\(moved from ${short(first)}\\)$`, 'm'),
    );
    const third = await world.json<Tagged>('put', '/etc/hostname', '--tag', 'first');
    assert.deepEqual(third.movedTags, [{ tag: 'first', from: second }]);
    await world.json('tag', second, 'second');
    const moved = await world.run(['tag', 'second', 'more', 'first']);
    assert.deepEqual(moved, {
      status: 0,
      stdout: `Tagged ${short(second)} as more\nTagged ${short(second)} as first (moved from ${short(third.id)})\n`,
      stderr: '',
    });
    assert.deepEqual(await world.json('tag', first, 'first'), {
      id: first,
      tags: ['first'],
      movedTags: [{ tag: 'first', from: second }],
    });
    assert.equal((await world.run(['tag', first, 'first'])).stdout, `Tagged ${short(first)} as first\n`);
  });

  it('shows, removes and asks for all tags of a snapshot', async () => {
    const { id, tags } = await world.json<Tagged>('put', '/etc/hostname', '--tag', 'b1', '--tag', 'a1');
    assert.deepEqual(tags, ['a1', 'b1']);
    const other = (await world.json<Saved>('put', '/etc/passwd', '--tag', 'single')).id;
    const listed = (await world.run(['ls'])).stdout.split('\n');
    assert.match(listed[0]!, /^ID +TAGS +KIND /);
    assert.match(listed[1]!, /^[0-9a-f]{12} +a1, b1 +file /);
    assert.match((await world.run(['show', 'b1'])).stdout, /^Tags +a1, b1$/m);
    const refused = await world.run(['rm', 'single', 'a1']);
    assert.deepEqual(refused, {
      status: 2,
      stdout: '',
      stderr:
        'livesnap: the snapshot tagged a1 also has the tag b1\n' +
        `To remove only the tag: livesnap untag a1. To remove the snapshot with all its tags: livesnap rm ${id}.\n`,
    });
    assert.equal((await world.json<Listed[]>('ls')).length, 2, 'nothing was removed');
    assert.equal((await world.run(['untag', 'a1'])).stdout, `Removed the tag a1 from ${id.slice(0, 12)}\n`);
    await world.json('tag', 'b1', 'c1');
    assert.equal((await world.run(['rm', id])).stdout, `Removed ${id} with the tags b1, c1\n`);
    assert.equal((await world.run(['rm', 'single'])).stdout, `Removed ${other} with the tag single\n`);
  });

  it('shows the size of a file, and the extent of a check', async () => {
    await world.json('put', '/etc/hostname', '--tag', 'x');
    const shown = (await world.run(['show', 'x'])).stdout;
    assert.match(shown, /^Size {2,}\d+ B$/m);
    assert.doesNotMatch(shown, /^(Memory|Disks)/m);
    assert.match((await world.run(['check'])).stdout, /^No damage found in the structure\. .*--read-data/);
    assert.match((await world.run(['check', '--read-data'])).stdout, /All data was verified/);
    assert.match((await world.run(['check', '--read-data=1/2'])).stdout, /1\/2 of the data/);
  });

  it('has its snapshots again after repair if the index was lost', async () => {
    const { id } = await world.json<Saved>('put', '/etc/passwd', '--tag', 'users');
    for (const name of ['store.db', 'store.db-wal', 'store.db-shm'])
      execFileSync('rm', ['-f', join(world.store, name)]);
    const { actions } = await world.json<{ actions: string[] }>('repair');
    assert.ok(actions.length > 0);
    const [only] = await world.json<Listed[]>('ls');
    assert.deepEqual([only!.id, only!.tags], [id, ['users']]);
    const copy = join(world.dir, 'passwd');
    await world.json('get', 'users', copy);
    assert.deepEqual(readFileSync(copy), readFileSync('/etc/passwd'));
  });

  it('ends check and get with exit status 4 if a pack is damaged', async () => {
    const file = join(world.dir, 'file.bin');
    writeFileSync(file, readFileSync(process.execPath).subarray(0, 1 << 20));
    await world.json('put', file, '--tag', 't');
    const packs = join(world.store, 'packs');
    const pack = execFileSync('find', [packs, '-type', 'f'], { encoding: 'utf8' }).trim().split('\n')[0]!;
    const bytes = readFileSync(pack);
    bytes[5000]! ^= 1;
    writeFileSync(pack, bytes);
    const checked = await world.run(['check', '--read-data', '--json']);
    assert.equal(checked.status, 4, checked.stderr);
    const { ok, problems } = JSON.parse(checked.stdout);
    assert.equal(ok, false);
    assert.deepEqual(Object.keys(problems[0]), ['file', 'offset', 'snapshots', 'regions', 'message']);
    const copy = join(world.dir, 'copy');
    await world.fails(4, 'DAMAGED', ['get', 't', copy]);
  });

  it('names the snapshot, the region and the file of damage, in text and in JSON', async () => {
    const file = join(world.dir, 'file.bin');
    writeFileSync(file, readFileSync(process.execPath).subarray(0, 1 << 20));
    const { id } = await world.json<Saved>('put', file, '--tag', 't');
    const [pack] = readdirSync(join(world.store, 'packs')) as [string];
    const bytes = readFileSync(join(world.store, 'packs', pack));
    bytes[5000]! ^= 1;
    writeFileSync(join(world.store, 'packs', pack), bytes);
    const damage = {
      ...{ file: `packs/${pack}`, offset: 32, snapshot: id, region: 'file' },
      ...{ fromBytes: 0, toBytes: 4096 },
    };
    const why = 'the frame does not match its checksum';
    const text = `snapshot ${id} is damaged: file offset 0x0 to 0x1000 cannot be read: packs/${pack} at offset 32: ${why}`;
    for (const verb of ['get', 'export']) {
      const args = [verb, 't', join(world.dir, 'target')];
      const ran = await world.run(args);
      assert.equal(ran.status, 4);
      assert.ok(ran.stderr.split('\n').includes(`livesnap: ${text}`), `${verb}: ${ran.stderr}`);
      const { error } = JSON.parse((await world.run([...args, '--json'])).stdout);
      assert.deepEqual([error.message, error.damage], [text, damage], verb);
    }
    const copied = ['copy', 't', '--from', world.store, '--store', join(world.dir, 'other'), '--json'];
    const { error } = JSON.parse((await world.run(copied)).stdout);
    assert.deepEqual([error.message, error.damage], [`remote: ${text}`, damage]);

    const checked = await world.run(['check', '--read-data']);
    assert.equal(checked.stdout, `packs/${pack} at 32: ${why} (file of snapshot ${id.slice(0, 12)})\n`);
    const { problems } = JSON.parse((await world.run(['check', '--read-data', '--json'])).stdout);
    assert.deepEqual(problems, [
      {
        file: `packs/${pack}`,
        offset: 32,
        snapshots: [id],
        regions: [{ snapshot: id, region: 'file' }],
        message: why,
      },
    ]);
  });

  it('names what is missing: a store, a file, a snapshot, a directory', async () => {
    await world.fails(3, 'NO_SUCH_FILE', ['ls']);
    await world.fails(3, 'NO_SUCH_FILE', ['put', join(world.dir, 'nothing')]);
    const other = join(world.dir, 'other');
    mkdirSync(other);
    writeFileSync(join(other, 'file'), 'mine');
    await world.fails(1, 'NOT_A_STORE', ['put', '/etc/passwd', '--store', other]);
    await world.fails(1, 'NOT_A_STORE', ['ls', '--store', other]);
    await world.json('put', '/etc/passwd', '--tag', 'x');
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['show', 'y']);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['rm', 'x', 'y']);
    assert.equal((await world.json<Listed[]>('ls')).length, 1, 'an rm that fails removes nothing');
    await world.fails(3, 'NO_SUCH_FILE', ['get', 'x', '/no/where/file']);
  });

  it('shows its problems and losses with --quiet, and nothing if there are none', async () => {
    const file = join(world.dir, 'file.bin');
    writeFileSync(file, readFileSync(process.execPath).subarray(0, 500_000));
    await world.json('put', file, '--tag', 'x');
    assert.deepEqual(await world.run(['check', '--read-data', '--quiet']), {
      status: 0,
      stdout: '',
      stderr: '',
    });
    const packs = join(world.store, 'packs');
    const pack = readdirSync(packs, { recursive: true })
      .map((name) => join(packs, String(name)))
      .find((path) => statSync(path).isFile())!;
    const bytes = readFileSync(pack);
    bytes[bytes.length >> 1]! ^= 1;
    chmodSync(pack, 0o600);
    writeFileSync(pack, bytes);
    const checked = await world.run(['check', '--read-data', '--quiet']);
    assert.equal(checked.status, 4);
    assert.match(checked.stdout, /^packs\/.*\n$/);
    const repaired = await world.run(['repair', '--quiet']);
    assert.equal(repaired.status, 4);
    assert.match(repaired.stdout, /^(Lost in snapshot .*\n)+$/);
    assert.equal(repaired.stderr, '');
    // Without --quiet both say what to do next.
    assert.match((await world.run(['check', '--read-data'])).stderr, /livesnap repair heals/);
    assert.match(
      (await world.run(['repair'])).stderr,
      /livesnap rm [0-9a-f]{12} && livesnap copy [0-9a-f]{32} --from STORE && livesnap repair/,
    );
  });

  it('names no chunks for files that gc deletes whole', async () => {
    await world.json('put', join(import.meta.dirname, 'store.test.js'), '--tag', 'x');
    assert.equal((await world.run(['gc'])).stdout, 'Freed 0 B\n');
  });
});
