/** Saves and restores of machines. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/addon.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { Database } from '../sqlite.js';
import { ending, World } from './cli.js';
import { type Listed, SAVE_KEYS, type Saved, type Tagged } from './saved.js';

/** Mounts a tmpfs while `work` runs. Skips the test if mounting is not allowed. */
async function onTmpfs(
  context: Mocha.Context,
  dir: string,
  sizeBytes: number,
  work: () => Promise<void>,
): Promise<void> {
  mkdirSync(dir, { mode: 0o700 });
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeBytes},mode=700`, 'tmpfs', dir]);
  if (mounted.status !== 0) {
    process.stderr.write(`    SKIPPED, not tested: ${dir} cannot be mounted here (root is needed)\n`);
    context.skip();
  }
  try {
    await work();
  } finally {
    execFileSync('umount', ['-l', dir]);
  }
}

describe('a saved machine', function () {
  this.timeout(300_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const start = (name: string, ...more: string[]) => world.start(name, more, probe('probe.bzImage'));
  const tickOf = async (name: string) =>
    Number((await world.ask(name, '', /^TICK \d+ nonce=[0-9a-f]{16}$/)).split(' ')[1]);

  before(function () {
    requireKvm(this);
  });

  for (const [cpus, memory] of [
    ['1', '64M'],
    ['2', '256M'],
    ['4', '5G'],
  ] as const) {
    it(`is restored in new processes, twice: ${cpus} vCPUs, ${memory}`, async () => {
      const ran = spawnSync(
        process.execPath,
        [
          join(projectRoot, 'scripts/cycles.mjs'),
          ...['--cycles', '1', '--cpus', cpus, '--memory', memory, '--text', '8', '--fill', '4'],
        ],
        { encoding: 'utf8' },
      );
      assert.equal(ran.status, 0, `${ran.stdout}${ran.stderr}`);
    });
  }

  it('keeps its state, or gets the one that --then names', async () => {
    await start('a');
    const state = async () => (await world.json<{ state: string }[]>('ps'))[0]?.state;
    const first = await world.json<Saved>('save', 'a');
    assert.deepEqual(Object.keys(first), SAVE_KEYS);
    assert.equal(first.parent, null);
    assert.equal(await state(), 'running');
    await tickOf('a');
    await world.json('pause', 'a');
    const second = await world.json<Saved>('save', 'a');
    assert.equal(second.parent, first.id);
    assert.equal(second.pauseMs, 0, 'it was paused already');
    assert.equal(await state(), 'paused');
    await world.json('save', 'a', '--then', 'resume');
    assert.equal(await state(), 'running');
    await world.json('save', 'a', '--then', 'pause');
    assert.equal(await state(), 'paused');
    assert.equal((await world.json<{ snapshot: string }[]>('ps'))[0]!.snapshot.length, 32);
    const last = await world.run(['save', 'a', '--then', 'stop', '--tag', 'last']);
    assert.match(last.stdout, /^[0-9a-f]{32}\n$/, 'only the ID is on stdout');
    assert.match(
      last.stderr,
      /^Saved 64 MiB in [\d.]+ m?s\nPages: [\d,]+ new, [\d,]+ deduplicated, [\d,]+ unchanged, [\d,]+ zero\nStored: .*, on top of [0-9a-f]{12}\n$/,
      'a paused machine is not paused for the save',
    );
    assert.equal(await state(), undefined);
    assert.deepEqual(world.machines(), []);
    assert.deepEqual((await world.json<Listed[]>('ls')).at(-1)!.tags, ['last']);
  });

  it('writes to its console without a gap', async () => {
    await start('a');
    const watched = world.spawn('console', 'a');
    const seen = ending(watched);
    for (let i = 0; i < 3; i++) await world.json('save', 'a');
    while ((await tickOf('a')) < 4);
    await world.json('stop', 'a');
    const { stdout } = await seen;
    const ticks = [...stdout.matchAll(/^TICK (\d+) nonce=[0-9a-f]{16}\r?$/gm)].map(([, n]) => Number(n));
    assert.ok(ticks.length > 3);
    assert.deepEqual(
      ticks,
      ticks.map((_, i) => i + 1),
      'no tick is missing or torn',
    );
    const others = stdout.replace(/^(TICK \d+|PROBE READY) nonce=[0-9a-f]{16}( cpus=1)?\r?\n/gm, '');
    assert.match(others, /^(T?I?C?K?[ \d]*(nonce=)?[0-9a-f]*\r?)$/, 'nothing else was written');
  });

  it('takes less than 2% of the first save for the second one', async () => {
    await start('a');
    await world.ask('a', 'text 7 16', /^OK/);
    await world.ask('a', 'fill 9 16', /^OK/);
    const first = await world.json<Saved>('save', 'a');
    const second = await world.json<Saved>('save', 'a');
    assert.ok(second.storedBytes < 0.02 * first.storedBytes, `${second.storedBytes} of ${first.storedBytes}`);
    await world.json('stop', 'a');
    const snapshots = await world.json<Listed[]>('ls');
    assert.deepEqual(
      snapshots.map(({ id, storedBytes }) => [id, storedBytes]),
      [first, second].map(({ id, storedBytes }) => [id, storedBytes]),
    );
    const { storedBytes, indexBytes } = await world.json<{ storedBytes: number; indexBytes: number }>(
      'stats',
    );
    const onDisk = Number(execFileSync('du', ['-sb', world.store], { encoding: 'utf8' }).split('\t')[0]);
    assert.ok(
      Math.abs(storedBytes + indexBytes - onDisk) <= 0.01 * onDisk,
      `${storedBytes} + ${indexBytes} is not ${onDisk}`,
    );
  });

  it('is restored by tag, ID or prefix, under its name or a numbered one', async () => {
    await start('web');
    const { id } = await world.json<Saved>('save', 'web', '--tag', 'base');
    const second = await world.json<{ name: string; snapshot: string }>('restore', 'base', '--detach');
    assert.deepEqual([second.name, second.snapshot], ['web-2', id]);
    await world.json('stop', 'web');
    const first = await world.json<{ name: string }>('restore', id.slice(0, 8), '--detach');
    assert.equal(first.name, 'web');
    const original = await world.run(['--cpu_path', id, '--memory_path', id, '--detach', '--quiet']);
    assert.deepEqual(original, { status: 0, stdout: 'web-3\n', stderr: '' });
    await world.fails(2, 'NAME_IN_USE', ['restore', 'base', '--name', 'web', '--detach']);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['restore', 'nothing', '--detach']);
    await world.fails(2, 'AMBIGUOUS', ['restore', '', '--detach']).catch(async () => {
      await world.fails(3, 'NO_SUCH_SNAPSHOT', ['restore', '', '--detach']);
    });
    assert.deepEqual(world.machines().sort(), ['web', 'web-2', 'web-3']);
    const moved = await world.json<Tagged>('save', 'web-2', '--tag', 'base', '--tag', 'also');
    assert.deepEqual([moved.tags, moved.movedTags], [['also', 'base'], [{ tag: 'base', from: id }]]);
    await world.json('stop', 'web-2');
    assert.equal((await world.json<{ snapshot: string }>('restore', 'also', '--detach')).snapshot, moved.id);
  });

  it('continues at its console when it is restored in the foreground', async () => {
    await start('a');
    const nonce = (await world.ask('a', '', /^TICK \d+ nonce=/)).split('=')[1];
    const { id } = await world.json<Saved>('save', 'a', '--then', 'stop');
    const ran = await world.run(['restore', id], 'halt\n');
    assert.equal(ran.status, 0, ran.stderr);
    assert.match(ran.stdout, /^OK halt\r?$/m);
    // The console begins with what it showed before the save. The guest does not boot again.
    assert.equal(ran.stdout.match(/PROBE READY/g)?.length, 1);
    for (const [, other] of ran.stdout.matchAll(/^TICK \d+ nonce=(\w{16})\r?$/gm)) assert.equal(other, nonce);
    assert.deepEqual(world.machines(), []);
  });

  it('is restored from a store that was moved, copied, or is mounted read-only', async function () {
    await start('a');
    const sum = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    // A page that is written during a save may leave a chunk for gc.
    await world.json('pause', 'a');
    await world.json('save', 'a', '--tag', 't');
    await world.json('resume', 'a');
    const list = await world.json('ls');
    const moved = join(world.dir, 'moved');
    const copied = join(world.dir, 'copied');
    renameSync(world.store, moved);
    cpSync(moved, copied, { recursive: true });
    const look = async (store: string, name: string) => {
      assert.deepEqual(await world.json('ls', '--store', store), list);
      await world.json('show', 't', '--store', store);
      await world.json('stats', '--store', store);
      assert.deepEqual(await world.json('check', '--read-data', '--store', store), {
        ok: true,
        problems: [],
      });
      await world.json('restore', 't', '--store', store, '--detach', '--name', name);
      assert.equal(await world.ask(name, 'sum 1', /^SUM [0-9a-f]{16}$/), sum);
      await world.json('stop', name);
    };
    await look(moved, 'moved');
    await look(copied, 'copied');
    const stick = join(world.dir, 'stick');
    await onTmpfs(this, stick, 256 << 20, async () => {
      const store = join(stick, 'store');
      cpSync(moved, store, { recursive: true });
      execFileSync('mount', ['-o', 'remount,ro', stick]);
      await look(store, 'stick');
      await world.fails(1, 'READ_ONLY', ['save', 'a', '--store', store]);
      await world.fails(1, 'READ_ONLY', ['put', '/etc/passwd', '--store', store]);
      await world.fails(1, 'READ_ONLY', ['rm', 't', '--store', store]);
      await world.fails(1, 'READ_ONLY', ['gc', '--store', store]);
      assert.equal(
        (await world.json<{ removedChunks: number }>('gc', '--dry-run', '--store', store)).removedChunks,
        0,
      );
      await tickOf('a');
      assert.deepEqual(await world.json('ls', '--store', store), list);
    });
  });

  it('and its store are unchanged if the disk is full', async function () {
    await start('a');
    await world.ask('a', 'fill 9 24', /^OK/);
    const disk = join(world.dir, 'disk');
    await onTmpfs(this, disk, 8 << 20, async () => {
      const store = join(disk, 'store');
      await world.json('put', '/etc/passwd', '--store', store);
      const list = await world.json('ls', '--store', store);
      await world.fails(1, 'NO_SPACE', ['save', 'a', '--store', store]);
      await tickOf('a');
      assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'running');
      assert.deepEqual(await world.json('ls', '--store', store), list);
      await world.json('gc', '--store', store);
      assert.deepEqual(await world.json('check', '--read-data', '--store', store), {
        ok: true,
        problems: [],
      });
    });
    // The next save covers what the failed one did not.
    const { id } = await world.json<Saved>('save', 'a');
    const sum = await world.ask('a', 'sum 32', /^SUM/);
    await world.json('stop', 'a');
    await world.json('restore', id, '--detach', '--name', 'b');
    assert.equal(await world.ask('b', 'sum 32', /^SUM/), sum);
  });

  it('is not saved to a store of a newer format', async () => {
    await start('a');
    await world.json('save', 'a', '--tag', 't');
    const database = new Database(join(world.store, 'store.db'));
    database.pragma('user_version = 9999');
    database.close();
    await world.fails(1, 'NEWER_FORMAT', ['save', 'a']);
    await world.fails(1, 'NEWER_FORMAT', ['restore', 't', '--detach']);
    await world.fails(1, 'NEWER_FORMAT', ['ls']);
    await tickOf('a');
    assert.deepEqual(world.machines(), ['a']);
  });
});
