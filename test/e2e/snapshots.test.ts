/** Saves, restores and the store, through the built command line. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { projectRoot } from '../../src/native/addon.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, MAIN, World } from './cli.js';

interface Saved {
  id: string;
  parent: string | null;
  pauseMs: number;
  storedBytes: number;
}

interface Listed {
  id: string;
  tag: string | null;
  storedBytes: number;
}

const SAVE_KEYS =
  'id tag movedFrom parent pauseMs storedWhilePausedBytes saveMs pages zeroPages unchangedPages newChunks reusedChunks storedBytes'.split(
    ' ',
  );

/** Mounts a tmpfs for the time of `work`; skips the test where that is not allowed. */
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

describe('snapshots', function () {
  this.timeout(300_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const start = (name: string, ...more: string[]) =>
    world.json(
      ...['start', '--kernel', probe('probe.bzImage'), '--memory', '64M', '--detach', '--name', name],
      ...more,
    );
  const tickOf = async (name: string) =>
    Number((await world.ask(name, '', /^TICK \d+ nonce=[0-9a-f]{16}$/)).split(' ')[1]);

  describe('of machines', () => {
    before(function () {
      requireKvm(this);
    });

    for (const [cpus, memory] of [
      ['1', '64M'],
      ['2', '256M'],
      ['4', '5G'],
    ] as const) {
      it(`go on in new processes, twice: ${cpus} vCPUs, ${memory}`, async () => {
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

    it('leave the machine as it was, or as --then says', async () => {
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
      assert.equal(second.pauseMs, 0, 'it stood still already');
      assert.equal(await state(), 'paused');
      await world.json('save', 'a', '--then', 'resume');
      assert.equal(await state(), 'running');
      await world.json('save', 'a', '--then', 'pause');
      assert.equal(await state(), 'paused');
      assert.equal((await world.json<{ snapshot: string }[]>('ps'))[0]!.snapshot.length, 32);
      const last = await world.run(['save', 'a', '--then', 'stop', '--tag', 'last']);
      assert.match(last.stdout, /^[0-9a-f]{32}\n$/, 'the id alone is on stdout');
      assert.equal(await state(), undefined);
      assert.deepEqual(world.machines(), []);
      assert.equal((await world.json<Listed[]>('ls')).at(-1)!.tag, 'last');
    });

    it('leave the console undisturbed', async () => {
      await start('a');
      const watched = world.spawn('console', 'a');
      const seen = ending(watched);
      for (let i = 0; i < 3; i++) await world.json('save', 'a');
      await tickOf('a');
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

    it('after the first take under 2% of it', async () => {
      await start('a');
      await world.ask('a', 'text 7 16', /^OK/);
      await world.ask('a', 'fill 9 16', /^OK/);
      const first = await world.json<Saved>('save', 'a');
      const second = await world.json<Saved>('save', 'a');
      assert.ok(
        second.storedBytes < 0.02 * first.storedBytes,
        `${second.storedBytes} of ${first.storedBytes}`,
      );
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

    it('are named by tag, id and prefix, and give their name to what is restored', async () => {
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
      const moved = await world.json<Saved & { movedFrom: string }>('save', 'web-2', '--tag', 'base');
      assert.equal(moved.movedFrom, id);
    });

    it('of a restored machine in the foreground go on at its console', async () => {
      await start('a');
      const nonce = (await world.ask('a', '', /^TICK \d+ nonce=/)).split('=')[1];
      const { id } = await world.json<Saved>('save', 'a', '--then', 'stop');
      const ran = await world.run(['restore', id], 'halt\n');
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, /^OK halt\r?$/m);
      assert.doesNotMatch(ran.stdout, /PROBE READY/);
      for (const [, other] of ran.stdout.matchAll(/^TICK \d+ nonce=(\w{16})\r?$/gm))
        assert.equal(other, nonce);
      assert.deepEqual(world.machines(), []);
    });

    it('are restored from a store that was moved, copied, or is mounted read-only', async function () {
      await start('a');
      const sum = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
      await world.json('save', 'a', '--tag', 't');
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

    it('that do not fit on the disk leave machine and store as they were', async function () {
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

    it('do not go into a store of a newer format', async () => {
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

  describe('of files', () => {
    it('are put, listed, shown, tagged, got, removed and collected', async () => {
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
        tag: 'two',
        movedFrom: null,
        replacedTag: 'one',
      });
      await world.fails(3, 'NO_SUCH_SNAPSHOT', ['show', 'one']);
      const [first, second, ...rest] = await world.json<Record<string, unknown>[]>('ls');
      assert.deepEqual(rest, []);
      assert.deepEqual(
        Object.keys(first!),
        'id tag kind vm parent createdAt memoryBytes diskBytes storedBytes'.split(' '),
      );
      assert.deepEqual([first!.tag, first!.kind, first!.vm], ['two', 'file', 'file.bin']);
      assert.equal(second!.id, again.stdout.trim());
      const shown = await world.json<Record<string, unknown>>('show', 'two');
      assert.deepEqual(Object.keys(shown), [
        ...Object.keys(first!),
        'regions',
        'uniqueBytes',
        'machine',
        'host',
      ]);
      const stats = await world.json<Record<string, number>>('stats');
      assert.deepEqual(
        Object.keys(stats),
        'snapshots logicalBytes nonZeroBytes uniqueBytes storedBytes indexBytes deadBytes chunks packs ratio'.split(
          ' ',
        ),
      );
      assert.equal(stats.snapshots, 2);
      await world.fails(2, 'USAGE', ['restore', 'two', '--detach']);
      assert.deepEqual(await world.json('rm', 'two', String(second!.id)), { removed: [put.id, second!.id] });
      const would = await world.json<{ removedChunks: number }>('gc', '--dry-run');
      assert.ok(would.removedChunks > 0);
      const did = await world.json<{ removedChunks: number; freedBytes: number }>('gc');
      assert.deepEqual(Object.keys(did), ['removedChunks', 'freedBytes']);
      assert.equal(did.removedChunks, would.removedChunks);
      const left = await world.json<Record<string, number>>('stats');
      assert.ok(left.storedBytes! + left.indexBytes! < 1 << 20);
      assert.deepEqual(await world.json('check'), { ok: true, problems: [] });
    });

    it('say which snapshot a tag is taken from', async () => {
      const short = (id: string) => id.slice(0, 12);
      const put = async (...options: string[]) => world.run(['put', '/etc/hostname', ...options]);
      const first = (await put('--tag', 'first')).stdout.trim();
      const again = await put('--tag', 'first');
      const second = again.stdout.trim();
      assert.match(
        again.stderr,
        new RegExp(`^Tagged ${short(second)} as first \\(was ${short(first)}\\)$`, 'm'),
      );
      const third = await world.json<Saved & { movedFrom: string }>('put', '/etc/hostname', '--tag', 'first');
      assert.equal(third.movedFrom, second);
      await world.json('tag', second, 'second');
      const moved = await world.run(['tag', 'second', 'first']);
      assert.deepEqual(moved, {
        status: 0,
        stdout: `Tagged ${short(second)} as first (was ${short(third.id)})\n${short(second)} is no longer second\n`,
        stderr: '',
      });
      assert.deepEqual(await world.json('tag', first, 'first'), {
        id: first,
        tag: 'first',
        movedFrom: second,
        replacedTag: null,
      });
      assert.equal((await world.run(['tag', first, 'first'])).stdout, `Tagged ${short(first)} as first\n`);
    });

    it('are described with the size of a file, and checked in words that say what was looked at', async () => {
      await world.json('put', '/etc/hostname', '--tag', 'x');
      const shown = (await world.run(['show', 'x'])).stdout;
      assert.match(shown, /^size {2,}\d+ B$/m);
      assert.doesNotMatch(shown, /^(memory|disks)/m);
      assert.match(
        (await world.run(['check'])).stdout,
        /^No damage found in the structure\. Use --read-data/,
      );
      assert.match((await world.run(['check', '--read-data'])).stdout, /Every byte was read/);
      assert.match((await world.run(['check', '--read-data=1/2'])).stdout, /1\/2 of the contents/);
    });

    it('are found again by repair when the index is lost', async () => {
      const { id } = await world.json<Saved>('put', '/etc/passwd', '--tag', 'users');
      for (const name of ['store.db', 'store.db-wal', 'store.db-shm'])
        execFileSync('rm', ['-f', join(world.store, name)]);
      const { actions } = await world.json<{ actions: string[] }>('repair');
      assert.ok(actions.length > 0);
      const [only] = await world.json<Listed[]>('ls');
      assert.deepEqual([only!.id, only!.tag], [id, 'users']);
      const copy = join(world.dir, 'passwd');
      await world.json('get', 'users', copy);
      assert.deepEqual(readFileSync(copy), readFileSync('/etc/passwd'));
    });

    it('that are damaged end with exit status 4', async () => {
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
      assert.deepEqual(Object.keys(problems[0]), ['file', 'offset', 'snapshots', 'message']);
      const copy = join(world.dir, 'copy');
      await world.fails(4, 'DAMAGED', ['get', 't', copy]);
    });

    /** Runs a shell script in which $L is livesnap. */
    const shell = (script: string, ...more: string[]) =>
      ending(
        spawn('bash', ['-c', script, 'bash', ...more], {
          cwd: world.dir,
          env: { ...world.env, L: `${process.execPath} ${MAIN}` },
        }),
      );

    it('are written into what stdout and other descriptors are, in turn with others', async () => {
      const ran = await shell(`
        echo data >in && $L put in --tag t --quiet >&2
        { echo HEAD; $L get t /dev/stdout; echo TAIL; } >mixed
        for to in - /dev/stdout /dev/fd/1 /proc/self/fd/1; do echo first >log; $L get t $to >>log; cat log; done
        echo first >log; $L get t /dev/stderr 2>>log; cat log
        echo first >log; $L get t /dev/fd/7 7>>log; cat log
        $L get t /dev/stdout | cat
        $L get t >(cat >there; echo done >>there) --quiet
        until grep -qs done there; do sleep 0.1; done
        cat mixed there; ls`);
      assert.deepEqual([ran.status, ran.stderr.replace(/^[0-9a-f]{32}\n/, '')], [0, '']);
      assert.deepEqual(ran.stdout.split('\n'), [
        ...Array(4).fill(['first', 'data']).flat(),
        ...['5 B written to /dev/stderr', 'first', 'data'],
        ...['5 B written to /dev/fd/7', 'first', 'data'],
        'data',
        ...['HEAD', 'data', 'TAIL', 'data', 'done'],
        ...['in', 'log', 'mixed', 'run', 'store', 'there', ''],
      ]);
    });

    it('are read from pipes, sockets and FIFOs, and named by any bytes', async () => {
      const ran = await shell(`
        set -e
        f=$(printf 'a\\377b')
        echo bytes >"$f"
        echo one | $L put /dev/stdin --tag one
        $L put <(echo two) --tag two
        mkfifo fifo; (sleep 0.2; echo three >fifo) & $L put fifo --tag three
        $L put "$f" --tag four; echo five | $L put - --tag five
        $L put /dev/stdin --tag six <"$f"
        for tag in one two three four five six; do $L get $tag -; done
        $L get four "$f-2" --quiet; cat "$f-2"
        $L ls --json >list`);
      assert.equal(ran.status, 0, ran.stderr);
      assert.deepEqual(
        ran.stdout.split('\n').filter((line) => !/^[0-9a-f]{32}$/.test(line)),
        ['one', 'two', 'three', 'bytes', 'five', 'bytes', 'bytes', ''],
      );
      const list = JSON.parse(readFileSync(join(world.dir, 'list'), 'utf8')) as { vm: string | null }[];
      assert.deepEqual(
        list.map(({ vm }) => vm),
        [null, null, 'fifo', 'a\ufffdb', null, null],
      );
      // Between Node processes standard streams are sockets, which have no name that can be opened.
      const socket = await world.run(['put', '/dev/stdin', '--tag', 'seven'], 'seven');
      assert.equal(socket.status, 0, socket.stderr);
      assert.deepEqual(await world.run(['get', 'seven', '/dev/stdout']), {
        status: 0,
        stdout: 'seven',
        stderr: '',
      });
      await world.fails(2, 'USAGE', ['put', world.dir]);
    });

    it('are not mixed with a progress bar on the terminal that they go to', async () => {
      await world.run(['put', '-', '--tag', 't'], 'data\n');
      const inTerminal = (command: string) =>
        shell('script -qec "$1" /dev/null </dev/null', `$L get t ${command}`);
      for (const target of ['-', '/dev/stdout', '/dev/stderr', '/dev/tty']) {
        const ran = await inTerminal(`${target} --quiet`);
        assert.equal(ran.stdout, 'data\r\n', target);
        const loud = await inTerminal(target);
        assert.equal(loud.stdout.replace(/5 B written to .*\r\n/, ''), 'data\r\n', target);
      }
      assert.match(
        (await inTerminal('- | cat')).stdout,
        /reading/,
        'there is a bar where there is room for it',
      );
    });

    it('that are too large for their target say so', async () => {
      await world.json('put', process.execPath, '--tag', 'node');
      const ran = await shell('ulimit -f 64; $L get node out');
      assert.deepEqual(
        [ran.status, ran.stderr],
        [
          1,
          'livesnap: cannot write out: the file is too large\n' +
            'Write to a file system that can hold it; ulimit -f shows the limit of the process.\n',
        ],
      );
      assert.equal((await shell('ls')).stdout, 'run\nstore\n');
    });

    it('are not there, are no files, or go into no store: each is said', async () => {
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
      assert.equal((await world.json<Listed[]>('ls')).length, 1, 'a rm that fails removes nothing');
      await world.fails(3, 'NO_SUCH_FILE', ['get', 'x', '/no/where/file']);
    });
  });
});
