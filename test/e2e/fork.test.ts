/** `livesnap fork`: one save, many clones. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';

interface ForkResult {
  readonly snapshot: string;
  readonly pauseMs: number | null;
  readonly forks: readonly {
    readonly id?: string;
    readonly name?: string;
    readonly error?: { readonly code: string };
  }[];
}

describe('livesnap fork', function () {
  this.timeout(limit(120_000));
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const start = (name: string, ...more: string[]): Promise<unknown> =>
    world.json(
      'start',
      '--kernel',
      probe('probe.bzImage'),
      '--memory',
      '32M',
      '--name',
      name,
      '--detach',
      ...more,
    );
  /** The next tick of a machine: its number, and the nonce that only its RAM holds. */
  const tick = async (name: string): Promise<readonly [number, string]> => {
    const { stdout } = await world.run(['console', name, '--until', '^TICK']);
    const [, count, nonce] = /^TICK (\d+) nonce=(\w+)\r?$/m.exec(stdout)!;
    return [Number(count), nonce!];
  };
  const names = async (): Promise<string[]> =>
    (await world.json<{ name: string }[]>('ps')).map(({ name }) => name).sort();

  it('saves a machine once, and its clones count on beside it', async () => {
    await start('web', '--label', 'course=os');
    const [before, nonce] = await tick('web');
    const { snapshot, pauseMs, forks } = await world.json<ForkResult>(
      ...['fork', 'web', '--count', '3', '--name', 'copy', '--tag', 'base', '--lifetime', '10m'],
    );
    assert.ok(pauseMs! > 0);
    assert.deepEqual(
      forks.map(({ name }) => name),
      ['copy-1', 'copy-2', 'copy-3'],
    );
    assert.equal(new Set(forks.map(({ id }) => id)).size, 3);
    const listed = await world.json<{ id: string; tags: string[] }[]>('ls');
    assert.deepEqual(
      listed.map(({ id, tags }) => [id, tags]),
      [[snapshot, ['base']]],
      'one snapshot',
    );
    for (const name of ['web', 'copy-1', 'copy-2', 'copy-3']) {
      const [count, same] = await tick(name);
      assert.equal(same, nonce);
      assert.ok(count > before, name);
    }
    const machines = await world.json<{ name: string; labels: object; endsAt: string | null }[]>('ps');
    for (const { name, labels, endsAt } of machines) {
      assert.deepEqual(labels, { course: 'os' }, name);
      assert.equal(endsAt !== null, name !== 'web', name);
    }
  });

  it('forks a snapshot under free names, and reports the clone that could not be started', async () => {
    await start('web');
    await world.json('save', 'web', '--tag', 'base', '--then', 'stop');
    await start('base-2');
    const first = await world.run(['fork', 'base', '--count', '2']);
    assert.equal(first.status, 0);
    assert.equal(first.stdout, 'web\nweb-2\n');
    const second = await world.run(['fork', 'base', '--count', '3', '--name', 'base']);
    assert.equal(second.status, 2, 'as of the first error');
    assert.deepEqual(second.stdout.split('\n').filter(Boolean).sort(), ['base-1', 'base-3']);
    assert.match(second.stderr, /a machine named base-2 already exists/);
    assert.deepEqual(await names(), ['base-1', 'base-2', 'base-3', 'web', 'web-2']);
  });

  it('asks which one is meant when a machine and a snapshot have the name', async () => {
    await start('web');
    await world.json('save', 'web', '--tag', 'web');
    const error = await world.fails(2, 'AMBIGUOUS', ['fork', 'web']);
    assert.match(error.message, /web is a machine and a snapshot/);
    const { pauseMs } = await world.json<ForkResult>('fork', 'web', '--type', 'snapshot');
    assert.equal(pauseMs, null, 'nothing is saved');
    await world.json<ForkResult>('fork', 'web', '--type', 'machine');
    assert.equal((await world.json<unknown[]>('ls')).length, 2);
  });

  it('refuses what cannot be forked', async () => {
    const absent = await world.fails(3, 'NO_SUCH_SNAPSHOT', ['fork', 'absent']);
    assert.match(absent.message, /no machine and no snapshot named absent/);
    await world.json('put', probe('probe.bzImage'), '--tag', 'file');
    assert.match((await world.fails(2, 'USAGE', ['fork', 'file'])).message, /holds a file/);
    assert.match((await world.fails(2, 'USAGE', ['fork', 'file', '--tag', 'x'])).message, /--tag is for/);
    await world.fails(3, 'NO_SUCH_MACHINE', ['fork', 'absent', '--type', 'machine']);
    assert.deepEqual(await names(), []);
  });

  it('leaves no clone when it is interrupted', async () => {
    await start('web');
    const forking = world.spawn('fork', 'web', '--count', '40', '--name', 'copy');
    const ended = new Promise<number | null>((resolve) => {
      forking.once('exit', resolve);
    });
    while ((await names()).length < 4) await sleep(20);
    forking.kill('SIGINT');
    assert.notEqual(await ended, 0);
    assert.deepEqual(await names(), ['web']);
  });
});
