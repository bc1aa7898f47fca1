/** Several stores of one server: requests choose by name, and a store that fails keeps no other from working. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '../../src/native/locks.js';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { type Asked, Serving } from './serving.js';

const WAIT = { prefer: 'wait' };
interface Snapshot {
  readonly id: string;
  readonly tags: readonly string[];
}

describe('several stores of livesnap serve', function () {
  this.timeout(limit(120_000));
  let world: World;
  let server: Serving;
  let archive: string;
  worldOfEachTest((made) => {
    world = made;
  });
  beforeEach(async () => {
    archive = join(world.dir, 'archive');
    server = await Serving.start(world, '--named-store', `archive=${archive}`);
  });
  afterEach(() => server?.end('SIGKILL'));

  /** The body of an answer with this status. */
  async function ask<T = Record<string, unknown>>(
    status: number,
    path: string,
    asked: Asked = {},
  ): Promise<T> {
    const answer = await server.ask<T>(path, asked);
    assert.equal(answer.status, status, `${path}: ${JSON.stringify(answer.body)}`);
    return answer.body;
  }
  const putKernel = (...store: string[]): Promise<unknown> =>
    world.json('put', probe('probe.bzImage'), '--tag', 'kernel', ...store);
  const tagsOf = async (store: string): Promise<string[]> =>
    (await ask<Snapshot[]>(200, `/v1/snapshots?store=${store}`)).flatMap(({ tags }) => tags).sort();
  const start = (name: string, query: string): Promise<{ id: string }> =>
    ask(201, `/v1/machines${query}`, {
      body: { kernel: { snapshot: 'kernel' }, memoryBytes: 32 << 20, name },
    });
  const save = (name: string, query: string, ...tags: string[]): Promise<Snapshot> =>
    ask(200, `/v1/machines/${name}/save${query}`, { body: { tags }, headers: WAIT });

  it('are listed by name, and used by name alone', async () => {
    assert.deepEqual(await ask(200, '/v1/stores'), [
      { name: 'main', default: true },
      { name: 'archive', default: false },
    ]);
    const refusals: [string, Asked][] = [
      ...['/v1/snapshots', '/v1/snapshots/a', '/v1/snapshots/a/fit', '/v1/snapshots/a/map', '/v1/store'].map(
        (path): [string, Asked] => [path, {}],
      ),
      ...['/v1/snapshots/a/diff/b', '/v1/snapshots/a/export', '/v1/overview', '/v1/events'].map(
        (path): [string, Asked] => [path, {}],
      ),
      ['/v1/snapshots/a', { method: 'DELETE' }],
      ['/v1/tags/a', { method: 'PUT', body: { snapshot: 'a' } }],
      ['/v1/tags/a', { method: 'DELETE' }],
      ...['/v1/snapshots/a/restore', '/v1/store/gc', '/v1/store/check'].map((path): [string, Asked] => [
        path,
        { method: 'POST' },
      ]),
      ['/v1/snapshots/a/fork', { body: { count: 1 } }],
      ['/v1/store/forget', { body: { keep: { last: 1 } } }],
      ['/v1/store/copy', { body: { to: 'main' } }],
      ['/v1/machines', { body: { kernel: { snapshot: 'a' } } }],
      ['/v1/snapshots', { body: 'x', headers: { 'content-type': 'application/x-tar' } }],
    ];
    for (const store of ['other', archive, '..', 'Archive'])
      for (const [path, asked] of refusals) {
        const answer = await server.ask(`${path}?store=${encodeURIComponent(store)}`, asked);
        assert.equal(answer.status, 400, `${path}: ${JSON.stringify(answer.body)}`);
        assert.equal(answer.body.detail, `this server has no store ${JSON.stringify(store)}`, path);
        assert.match(answer.body.hint as string, /^It has main, archive\. /);
      }
    await ask(400, '/v1/store/gc?Store=archive', { method: 'POST' });
    await ask(400, '/v1/snapshots?store=main&store=archive');
    await ask(400, '/v1/snapshots?store=');
    for (const [args, message] of [
      [['--named-store', `main=${archive}`], /gives the name main or a directory twice/],
      [['--named-store', `a=${archive}`, '--named-store', `b=${archive}`], /a directory twice/],
      [['--named-store', `a=${archive}`, '--named-store', `a=${archive}2`], /gives a name twice/],
    ] as const) {
      await server.end();
      const { message: text } = await world.fails(2, 'USAGE', ['serve', '--listen', 'none', ...args]);
      assert.match(text, message);
    }
  });

  it('have machines, snapshots, tags and jobs of their own', async () => {
    await putKernel('--store', archive);
    await ask(404, '/v1/machines', { body: { kernel: { snapshot: 'kernel' } } });
    const { id } = await start('web', '?store=archive');
    assert.deepEqual((await save('web', '', 'own')).tags, ['own']);
    await save('web', '?store=main', 'elsewhere');
    assert.deepEqual([await tagsOf('archive'), await tagsOf('main')], [['kernel', 'own'], ['elsewhere']]);
    const job = await ask<{ id: string }>(202, '/v1/machines/web/save', { body: { tags: ['later'] } });
    while ((await ask<{ state: string }>(200, `/v1/jobs/${job.id}`)).state === 'running') await sleep(50);
    assert.deepEqual(await tagsOf('archive'), ['kernel', 'later', 'own']);

    await ask(200, '/v1/tags/again?store=archive', { method: 'PUT', body: { snapshot: 'own' } });
    await ask(404, '/v1/tags/again', { method: 'DELETE' });
    await ask(204, '/v1/tags/again?store=archive', { method: 'DELETE' });
    await ask(404, '/v1/snapshots/own/restore', { body: { name: 'b' } });
    await ask(201, '/v1/snapshots/own/restore?store=archive', { body: { name: 'b' } });
    await save('b', '', 'second');
    assert.deepEqual(await tagsOf('archive'), ['kernel', 'later', 'own', 'second']);
    for (const [path, names] of [
      ['/v1/snapshots/own/fork?store=archive', 'c'],
      ['/v1/machines/web/fork', 'd'],
    ]) {
      const body = { count: 1, name: names };
      const [forked] = await ask<{ machine?: { name: string } }[]>(200, path!, { body, headers: WAIT });
      assert.equal(forked!.machine?.name, `${names}-1`, JSON.stringify(forked));
    }
    const { length } = await ask<Snapshot[]>(200, '/v1/snapshots');
    assert.equal(length, 1, 'the fork saved to the store of the machine');
    for (const name of ['web', 'b', 'c-1', 'd-1'])
      await ask(200, `/v1/machines/${name}/stop`, { body: { force: true } });

    await ask(200, '/v1/store/copy', { body: { from: 'archive', snapshots: ['own'] }, headers: WAIT });
    assert.deepEqual(await tagsOf('main'), ['elsewhere', 'own']);
    await ask(400, '/v1/store/copy', { body: { to: 'main' }, headers: WAIT });
    await ask(204, '/v1/snapshots/own?store=archive', { method: 'DELETE' });
    assert.deepEqual(
      [await tagsOf('main'), await tagsOf('archive')],
      [
        ['elsewhere', 'own'],
        ['kernel', 'later', 'second'],
      ],
    );
    await ask(200, '/v1/store/gc?store=archive', { method: 'POST', headers: WAIT });
    const jobs = await ask<{ kind: string; subject: string }[]>(200, '/v1/jobs');
    assert.deepEqual(
      jobs.filter(({ kind }) => kind === 'gc').map(({ subject }) => subject),
      ['archive'],
    );
    const sizes = await Promise.all(
      ['main', 'archive'].map((store) => ask<{ snapshots: number }>(200, `/v1/store?store=${store}`)),
    );
    assert.deepEqual(
      sizes.map(({ snapshots }) => snapshots),
      [2, 4],
    );
    const overview = await ask<{
      host: { store: string };
      snapshots: Snapshot[];
      machines: { id: string }[];
    }>(200, '/v1/overview?store=archive');
    assert.deepEqual([overview.host.store, overview.snapshots.length], ['archive', 4]);
    assert(!overview.machines.some((each) => each.id === id));
    const metrics = (await ask(200, '/metrics')) as unknown as string;
    assert.match(metrics, /^livesnap_snapshots\{store="main"\} 2$/m);
    assert.match(metrics, /^livesnap_snapshots\{store="archive"\} 4$/m);
  });

  it('are downloaded with a ticket for this store, and uploaded to it', async () => {
    await putKernel('--store', archive);
    const path = '/v1/snapshots/kernel/export?store=archive';
    const ticket = async (of: string): Promise<string> =>
      (await ask<{ secret: string }>(201, '/v1/tickets', { body: { path: of } })).secret;
    const wrong = await fetch(`${server.url}${path}&ticket=${await ticket('/v1/snapshots/kernel/export')}`);
    assert.equal(wrong.status, 401, 'a ticket for the default store');
    const archived = await fetch(`${server.url}${path}&ticket=${await ticket(path)}`);
    assert.equal(archived.status, 200);
    const tar = Buffer.from(await archived.arrayBuffer());
    const sent = await fetch(`${server.url}/v1/snapshots?store=main`, {
      method: 'POST',
      headers: { ...server.bearer, ...WAIT, 'content-type': 'application/x-tar' },
      body: tar,
    });
    assert.equal(sent.status, 200, await sent.text());
    assert.deepEqual(await tagsOf('main'), ['kernel']);
    await ask(400, '/v1/tickets', { body: { path: '/v1/snapshots/a/export?store=a&x=1' } });
  });

  it('that are in use or damaged keep no other one waiting', async () => {
    await putKernel();
    await putKernel('--store', archive);
    await start('web', '');
    await save('web', '', 'one');
    await ask(200, '/v1/overview?store=archive');
    // As repair holds it: whoever opens the store waits.
    const lock = openSync(join(archive, 'index.lock'), 'r');
    assert(tryLock(lock, 'exclusive'));
    let hasAnswered = false;
    const waiting = server.ask('/v1/snapshots?store=archive').finally(() => {
      hasAnswered = true;
    });
    try {
      await save('web', '', 'two');
      assert.deepEqual(await tagsOf('main'), ['kernel', 'one', 'two']);
      await ask(201, '/v1/snapshots/one/restore', { body: { name: 'b' } });
      await ask(200, '/v1/overview');
      await ask(200, '/v1/machines/b/stop', { body: { force: true } });
      assert.equal(hasAnswered, false, JSON.stringify(hasAnswered ? await waiting : null));
      const metrics = (await ask(200, '/metrics')) as unknown as string;
      assert.match(metrics, /^livesnap_store_answers\{store="archive"\} 0$/m);
      assert.match(metrics, /^livesnap_snapshots\{store="main"\} 3$/m);
      assert.doesNotMatch(metrics, /livesnap_snapshots\{store="archive"\}/);
    } finally {
      closeSync(lock);
    }
    assert.equal((await waiting).status, 200);

    for (const file of readdirSync(archive))
      if (/^store\.db(-wal|-shm)?$/.test(file))
        writeFileSync(join(archive, file), 'no database'.repeat(1000));
    const damaged = await server.ask('/v1/snapshots?store=archive');
    assert(damaged.status >= 400, JSON.stringify(damaged.body));
    await save('web', '', 'three');
    assert.deepEqual(await tagsOf('main'), ['kernel', 'one', 'three', 'two']);
    assert.match(
      (await ask(200, '/metrics')) as unknown as string,
      /^livesnap_store_answers\{store="main"\} 1\nlivesnap_store_answers\{store="archive"\} 0$/m,
    );
  });
});
