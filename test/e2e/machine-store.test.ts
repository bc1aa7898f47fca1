/** Which store a machine saves to, and stores in places that take no directories. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { probe, requireKvm } from '../kvm/kvm.js';
import { MAIN, World } from './cli.js';

describe('the store of a machine', function () {
  this.timeout(120_000);
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const start = (name: string, ...more: string[]) =>
    world.json<{ pid: number }>(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', name],
      ...more,
    );
  const ids = async (store: string) =>
    (await world.json<{ id: string }[]>('ls', '--store', store)).map(({ id }) => id);

  it('is the one it was started with or restored from, unless a save names another', async () => {
    delete world.env.LIVESNAP_STORE;
    world.env.XDG_DATA_HOME = join(world.dir, 'data');
    const mine = join(world.dir, 'mine');
    await start('a', '--store', mine);
    const first = await world.json<{ id: string }>('save', 'a');
    assert.deepEqual(await ids(mine), [first.id]);
    await world.json('stop', 'a');
    await world.json('restore', first.id, '--store', mine, '--detach', '--name', 'b');
    const second = await world.json<{ id: string; parent: string }>('save', 'b');
    assert.equal(second.parent, first.id, 'only what changed is saved');
    const other = join(world.dir, 'other');
    const third = await world.json<{ id: string; parent: string | null }>('save', 'b', '--store', other);
    assert.equal(third.parent, null);
    assert.deepEqual(await ids(other), [third.id]);
    world.env.LIVESNAP_STORE = join(world.dir, 'environment');
    const fourth = await world.json<{ id: string }>('save', 'b');
    assert.deepEqual(await ids(world.env.LIVESNAP_STORE), [fourth.id]);
    assert.deepEqual((await ids(mine)).sort(), [first.id, second.id].sort());
  });

  it('is never the exported directory that it was restored from', async () => {
    delete world.env.LIVESNAP_STORE;
    world.env.XDG_DATA_HOME = join(world.dir, 'data');
    await start('a');
    const { id } = await world.json<{ id: string }>('save', 'a', '--then', 'stop');
    const stick = join(world.dir, 'stick');
    await world.json('export', id, stick);
    await world.json('rm', id);
    await world.json('restore', stick, '--detach', '--name', 'b');
    const saved = await world.json<{ id: string }>('save', 'b');
    assert.deepEqual(await ids(stick), [id]);
    assert.deepEqual(await ids(join(world.env.XDG_DATA_HOME, 'livesnap')), [saved.id]);
  });
});

describe('a store below /proc, which takes no directories', function () {
  this.timeout(120_000);
  let world: World;
  const pids: number[] = [];
  beforeEach(() => {
    world = new World();
  });
  afterEach(async () => {
    // A process that spins obeys nothing else.
    for (const pid of pids.splice(0))
      try {
        process.kill(pid, 'SIGKILL');
      } catch {}
    await world.end();
  });

  /** A command that would spin for ever is killed, and fails the test. */
  const refused = (...args: string[]): Promise<{ message: string; hint: string }> =>
    new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [MAIN, ...args, '--json'], {
        env: world.env,
        stdio: ['ignore', 'pipe', 'inherit'],
        timeout: 30_000,
        killSignal: 'SIGKILL',
      });
      let out = '';
      child.stdout.on('data', (part) => {
        out += part;
      });
      child.once('close', (status, signal) => {
        if (status === 1) resolve(JSON.parse(out).error);
        else reject(new Error(`livesnap ${args.join(' ')} ended with ${signal ?? status}: ${out}`));
      });
    });

  for (const dir of ['/proc/nope', '/proc/nope/below', '/proc/sys/nope']) {
    it(`is refused by put: ${dir}`, async () => {
      const { message, hint } = await refused('put', MAIN, '--store', dir);
      assert.match(message, /^cannot create \/proc\S*nope: no directory can be created in \/proc(\/sys)?$/);
      assert.match(hint, /another file system/);
    });
  }

  it('is refused by copy --to', async () => {
    const { id } = await world.json<{ id: string }>('put', MAIN);
    assert.match(
      (await refused('copy', id, '--to', '/proc/nope')).message,
      /^cannot create \/proc\S*: no directory can be created in \/proc$/,
    );
  });

  it('is refused by a save, and the machine goes on', async function () {
    requireKvm(this);
    const { pid } = await world.json<{ pid: number }>(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--detach', '--name', 'a'],
      ...['--store', '/proc/nope'],
    );
    pids.push(pid);
    delete world.env.LIVESNAP_STORE;
    assert.match(
      (await refused('save', 'a')).message,
      /^cannot create \/proc\S*: no directory can be created in \/proc$/,
    );
    await world.ask('a', '', /^TICK \d+ nonce=[0-9a-f]{16}$/);
    await world.json('save', 'a', '--store', world.store);
  });
});
