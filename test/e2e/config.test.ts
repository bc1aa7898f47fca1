/** The config file: what it changes, what has precedence over it, and what doctor says about it. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../src/host/index.js';
import { probe } from '../kvm/kvm.js';
import { type World, worldOfEachTest } from './cli.js';

describe('the config file', function () {
  this.timeout(120_000);
  let world: World;
  let file: string;
  worldOfEachTest((made) => {
    world = made;
    const dir = join(world.dir, 'config/livesnap');
    mkdirSync(dir, { recursive: true });
    file = join(dir, 'config.json');
  });

  const configure = (config: unknown): void => writeFileSync(file, JSON.stringify(config));
  const start = (...more: string[]) =>
    world.json<{ name: string; memoryBytes: number; cpus: number }>(
      ...['start', '--kernel', probe('probe.bzImage'), '--detach'],
      ...more,
    );
  const doctorSays = async (...args: string[]) => {
    const { stdout } = await world.run(['doctor', '--json', ...args]);
    const { checks } = JSON.parse(stdout) as { checks: { name: string; state: string; message: string }[] };
    const { state, message } = checks.find(({ name }) => name === 'config')!;
    return { state, message };
  };

  it('has defaults of start, which options override', async () => {
    const disk = join(world.dir, 'disk.img');
    writeFileSync(disk, Buffer.alloc(1 << 20));
    configure({ memory: '32M', cpus: 2, block: [`path=${disk},ro`] });
    const disksOf = async (name: string) => {
      await world.json('save', name, '--tag', name);
      const { regions } = await world.json<{ regions: { name: string }[] }>(
        'show',
        name,
        '--type',
        'snapshot',
      );
      return regions.filter(({ name: region }) => region.startsWith('disk')).length;
    };
    const plain = await start('--name', 'plain');
    assert.deepEqual([plain.memoryBytes, plain.cpus], [32 * 2 ** 20, 2]);
    assert.equal(await disksOf('plain'), 1);
    const other = await start('--name', 'other', '--memory', '64M', '--cpus', '1', '--block', 'none');
    assert.deepEqual([other.memoryBytes, other.cpus], [64 * 2 ** 20, 1]);
    assert.equal(await disksOf('other'), 0);
    const legacy = await world.json<{ cpus: number }>(
      ...['--kernel', `path=${probe('probe.bzImage')}`, '--vcpu', 'num=1', '--detach', '--name', 'legacy'],
    );
    assert.equal(legacy.cpus, 1);
    assert.match(
      (await world.fails(2, 'USAGE', ['start', '--kernel', '/dev/null', '--net', 'none', '--net', 'user']))
        .message,
      /excludes/,
    );
  });

  it('names the store, unless an option or the environment does', async () => {
    const { LIVESNAP_STORE } = world.env;
    delete world.env.LIVESNAP_STORE;
    const stores = ['configured', 'given', 'set'].map((name) => join(world.dir, name));
    const [configured, given, set] = stores as [string, string, string];
    configure({ store: configured });
    await world.json('put', file, '--tag', 'configured');
    await world.json('put', file, '--tag', 'given', '--store', given);
    world.env.LIVESNAP_STORE = set;
    await world.json('put', file, '--tag', 'set');
    for (const store of stores) {
      const [snapshot, ...more] = await world.json<{ tags: string[] }[]>('ls', '--store', store);
      assert.ok(store.endsWith(snapshot!.tags[0]!));
      assert.deepEqual(more, []);
    }
    assert.deepEqual(await doctorSays(), {
      state: 'ok',
      message: `${file}: store ${configured}; LIVESNAP_STORE has precedence over its store`,
    });
    delete world.env.LIVESNAP_STORE;
    assert.deepEqual(await doctorSays(), { state: 'ok', message: `${file}: store ${configured}` });
    assert.match((await doctorSays('--store', given)).message, /; --store has precedence over its store$/);
    world.env.LIVESNAP_STORE = LIVESNAP_STORE;
  });

  it('gives the library its store, and nothing else', async () => {
    const before = { ...process.env };
    configure({ store: '/configured', memory: 'lots' });
    try {
      process.env.XDG_CONFIG_HOME = join(world.dir, 'config');
      delete process.env.LIVESNAP_STORE;
      assert.equal((await connect()).storeDir, '/configured');
      assert.equal((await connect({ store: '/given' })).storeDir, '/given');
    } finally {
      for (const name of ['XDG_CONFIG_HOME', 'LIVESNAP_STORE'])
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
    }
  });

  it('is refused by the commands that need it, with the keys that it may have', async () => {
    delete world.env.LIVESNAP_STORE;
    configure({ memroy: '1G' });
    for (const args of [['ls'], ['start', '--kernel', probe('probe.bzImage')]]) {
      const { message, hint } = await world.fails(2, 'USAGE', args);
      assert.equal(message, `the config file ${file}: "memroy" is not a known field`);
      assert.match(hint, /store.*memory.*cpus.*block.*net/);
    }
    assert.equal((await world.run(['ps'])).status, 0);
    assert.equal((await world.run(['--version'])).status, 0);
    assert.equal((await doctorSays()).state, 'wrong');
    configure({ net: ['tap0'] });
    assert.deepEqual(await doctorSays(), {
      state: 'wrong',
      message: `the config file ${file}: net: "tap0" is no part of a network`,
    });
    assert.deepEqual(world.machines(), []);
  });
});
