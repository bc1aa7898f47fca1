/** `livesnap serve`: the API of a host, over its socket and over TCP, by friends and by others. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { connect as connectTcp } from 'node:net';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { freePort } from './free-port.js';
import { type Answer, type Asked, Serving } from './serving.js';

interface Event {
  readonly id: string | null;
  readonly event: string;
  readonly data: { machines?: MachineBody[]; snapshots?: { tags: string[] }[] };
}

/** A client of GET /v1/events. */
class Stream {
  #text = '';
  #wake = () => {};

  private constructor(readonly request: ClientRequest) {}

  static open(server: Serving, headers: Record<string, string> = server.bearer): Promise<Stream> {
    const request = httpRequest({
      ...{ host: '127.0.0.1', port: server.port, path: '/v1/events', agent: false, headers },
    });
    const stream = new Stream(request);
    return new Promise((resolve, reject) => {
      request.on('error', reject);
      request.once('response', (response) => {
        assert.equal(response.headers['content-type'], 'text/event-stream');
        response.setEncoding('utf8').on('data', (part) => {
          stream.#text += part;
          stream.#wake();
        });
        response.on('error', () => {});
        resolve(stream);
      });
      request.end();
    });
  }

  /** The events up to the first that passes. */
  async take(passes: (event: string, data: Event['data']) => boolean): Promise<Event[]> {
    const taken: Event[] = [];
    for (;;) {
      const end = this.#text.indexOf('\n\n');
      if (end < 0) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        continue;
      }
      const [, id, event, data] = /^(?:id: (.*)\n)?event: (.*)\ndata: (.*)$/.exec(this.#text.slice(0, end))!;
      this.#text = this.#text.slice(end + 2);
      taken.push({ id: id ?? null, event: event!, data: JSON.parse(data!) });
      if (passes(event!, taken.at(-1)!.data)) return taken;
    }
  }

  close(): void {
    this.request.destroy();
  }
}

type Job = {
  id: string;
  kind: string;
  subject: string;
  state: string;
  result: unknown;
  problem: { detail: string } | null;
};

const WAIT = { prefer: 'wait' };

type MachineBody = { id: string; name: string; state: string; labels: Record<string, string>; pid: number };

/** What answers an archive of directories alone, which does not end. */
async function endlessUpload({ port, bearer }: Serving): Promise<{ status: number; text: string }> {
  const args = ['--format=ustar', '-cf', '-', '--no-recursion', '--transform=s,.*,packs,', '.'];
  const header = execFileSync('tar', args).subarray(0, 512);
  const request = httpRequest({
    ...{ host: '127.0.0.1', port, path: '/v1/snapshots', method: 'POST', agent: false },
    headers: { ...bearer, 'content-type': 'application/x-tar' },
  });
  const part = Buffer.concat(Array<Buffer>(128).fill(header));
  function* parts(): Generator<Buffer> {
    for (;;) yield part;
  }
  const archive = Readable.from(parts());
  archive.pipe(request);
  try {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    const { value } = await response.setEncoding('utf8')[Symbol.asyncIterator]().next();
    return { status: response.statusCode!, text: value };
  } finally {
    archive.destroy();
    request.destroy();
  }
}

describe('livesnap serve', function () {
  this.timeout(limit(120_000));
  let world: World;
  let server: Serving;
  worldOfEachTest((made) => {
    world = made;
  });
  afterEach(async () => {
    await server?.end('SIGKILL');
  });

  const start = (name: string): Promise<Answer<MachineBody>> =>
    server.ask('/v1/machines', {
      body: { kernel: { snapshot: 'kernel' }, memoryBytes: 32 << 20, name, labels: { course: 'os' } },
    });
  const ended = async (id: string): Promise<Job> => {
    for (;;) {
      const { body } = await server.ask<Job>(`/v1/jobs/${id}`);
      if (body.state !== 'running') return body;
      await sleep(50);
    }
  };
  const putKernel = (): Promise<unknown> => world.json('put', probe('probe.bzImage'), '--tag', 'kernel');

  it('boots, saves, forks, restores and stops machines, and they outlive a server that was killed', async () => {
    server = await Serving.start(world);
    await putKernel();
    const started = await start('web');
    assert.equal(started.status, 201);
    assert.equal(started.headers.location, `/v1/machines/${started.body.id}`);
    assert.deepEqual([started.body.state, started.body.labels], ['running', { course: 'os' }]);

    const saved = await server.ask('/v1/machines/web/save', {
      body: { tags: ['first'], then: 'pause' },
      headers: WAIT,
    });
    assert.equal(saved.status, 200);
    assert.deepEqual(saved.body.tags, ['first']);
    assert.equal((await server.ask('/v1/machines/web')).body.state, 'paused');
    assert.equal((await server.ask('/v1/machines/web/resume', { method: 'POST' })).body.state, 'running');

    const forked = await server.ask<{ machine: MachineBody }[]>('/v1/machines/web/fork', {
      body: { count: 2, name: 'copy' },
      headers: WAIT,
    });
    assert.deepEqual(
      forked.body.map(({ machine: { name } }) => name),
      ['copy-1', 'copy-2'],
    );
    const clones = await server.ask<{ machine: MachineBody }[]>('/v1/snapshots/first/fork', {
      body: { count: 2, name: 'clone' },
      headers: WAIT,
    });
    assert.deepEqual(
      clones.body.map(({ machine: { name } }) => name),
      ['clone-1', 'clone-2'],
    );
    const ofFile = { body: { count: 1 }, headers: WAIT };
    assert.equal((await server.ask('/v1/snapshots/kernel/fork', ofFile)).status, 400);
    const restored = await server.ask<MachineBody>('/v1/snapshots/first/restore', {
      body: { name: 'again', labels: { course: 'net' } },
    });
    assert.equal(restored.status, 201);

    await server.end('SIGKILL');
    server = await Serving.start(world);
    const all = await server.ask<MachineBody[]>('/v1/machines?label=course=os&state=running');
    assert.deepEqual(
      all.body.map(({ name }) => name),
      ['clone-1', 'clone-2', 'copy-1', 'copy-2', 'web'],
    );
    const changed = await server.ask(`/v1/machines/${started.body.id}`, {
      method: 'PATCH',
      body: { labels: { course: 'db' }, lifetimeMs: 3_600_000 },
    });
    assert.deepEqual(changed.body.labels, { course: 'db' });
    assert.match(changed.body.endsAt as string, /Z$/);
    const stopped = await server.ask('/v1/machines/web/stop', { body: { force: true } });
    assert.deepEqual([stopped.status, stopped.body.how], [200, 'ended']);
    // A machine whose process was killed is found, and cleaned up.
    process.kill(restored.body.pid, 'SIGKILL');
    while ((await server.ask('/v1/machines/again')).body.state !== 'gone') await sleep(20);
    for (const name of ['again', 'clone-1', 'clone-2', 'copy-1', 'copy-2'])
      assert.equal((await server.ask(`/v1/machines/${name}`, { method: 'DELETE' })).status, 204);
    assert.deepEqual((await server.ask('/v1/machines')).body, []);
    assert.equal((await server.ask('/v1/machines/web')).status, 404);
    assert.equal(await server.end(), 0);
  });

  it('lists, compares, tags and deletes snapshots, and describes the store', async () => {
    server = await Serving.start(world);
    assert.deepEqual((await server.ask('/v1/snapshots')).body, [], 'a store that does not exist yet');
    await putKernel();
    await start('web');
    for (const tag of ['one', 'two'])
      await server.ask('/v1/machines/web/save', { body: { tags: [tag] }, headers: WAIT });
    const tagged = await server.ask('/v1/tags/last', { method: 'PUT', body: { snapshot: 'one' } });
    assert.deepEqual(tagged.body.tags, ['last', 'one']);
    const moved = await server.ask('/v1/tags/last', { method: 'PUT', body: { snapshot: 'two' } });
    assert.deepEqual(moved.body.movedTags, [{ tag: 'last', from: tagged.body.id }]);
    assert.equal(
      (await server.ask('/v1/snapshots/two', { method: 'DELETE' })).status,
      409,
      'it has another tag',
    );
    assert.equal((await server.ask('/v1/tags/last', { method: 'DELETE' })).status, 204);
    const difference = await server.ask<{ region: string }[]>('/v1/snapshots/one/diff/two');
    assert.equal(difference.body[0]!.region, 'ram@0x0');
    assert.deepEqual((await server.ask('/v1/snapshots/two/fit')).body, { fits: true, findings: [] });
    assert.equal((await server.ask('/v1/snapshots/kernel/fit')).status, 400);
    const map = await server.ask<string>('/v1/snapshots/two/map?maxCells=64');
    const about = JSON.parse(map.headers['livesnap-page-map'] as string);
    assert.deepEqual([map.body.length, about.pages, about.pagesPerCell], [64, 8192, 128]);
    const block = await server.ask('/v1/snapshots/two/map?fromPage=512&pages=512&base=one');
    assert.match(String(block.headers['livesnap-page-map']), /"fromPage":512,"pages":512,"pagesPerCell":1/);
    for (const query of [
      'maxCells=-1',
      'fromPage=1',
      'fromPage=1e3',
      'region=../x',
      'unknown=1',
      'base=absent',
    ])
      assert([400, 404].includes((await server.ask(`/v1/snapshots/two/map?${query}`)).status), query);
    const details = await server.ask<{ regions: { name: string }[] } & Record<string, unknown>>(
      '/v1/snapshots/two',
    );
    assert.equal(details.body.regions[0]!.name, 'ram@0x0');
    assert.equal(typeof details.body.pauseMs, 'number', 'it ran when it was saved');
    assert.equal(details.body.verifiedAt, null);
    assert.deepEqual(
      (await server.ask('/v1/store/check', { body: { readData: true }, headers: WAIT })).body,
      {
        ok: true,
        problems: [],
        isNoted: true,
      },
    );
    assert.match(String((await server.ask('/v1/snapshots/two')).body.verifiedAt), /Z$/);
    const stats = (await server.ask('/v1/store')).body;
    assert.deepEqual([stats.snapshots, stats.verifiedBytes], [3, stats.packBytes]);
    const pattern = await server.ask('/v1/snapshots/*', { method: 'DELETE' });
    assert.equal(pattern.status, 400, 'a pattern would delete several');
    assert.equal((await server.ask('/v1/snapshots/two', { method: 'DELETE' })).status, 204);
    assert.equal((await server.ask('/v1/snapshots/two')).status, 404);
    assert.deepEqual(
      (await server.ask<{ tags: string[] }[]>('/v1/snapshots')).body.flatMap(({ tags }) => tags),
      ['kernel', 'one'],
    );
    const metrics = await server.ask<string>('/metrics');
    assert.match(metrics.body as unknown as string, /^livesnap_machines\{state="running"\} 1$/m);
    assert.match(metrics.body as unknown as string, /^livesnap_snapshots 2$/m);
  });

  it('carries a console as a WebSocket, for a session too', async () => {
    server = await Serving.start(world);
    await putKernel();
    await start('web');
    const code = await server.ask<{ secret: string }>('/v1/codes', { method: 'POST' });
    const session = await server.askTcp<{ secret: string }>('/v1/sessions', {
      body: { code: code.body.secret },
    });
    assert.equal(session.status, 201);
    assert.equal(
      (await server.askTcp('/v1/sessions', { body: { code: code.body.secret } })).status,
      401,
      'used',
    );
    assert.equal(
      (
        await server.askTcp('/v1/codes', {
          method: 'POST',
          headers: { authorization: `Bearer ${session.body.secret}` },
        })
      ).status,
      403,
      'a session makes no code',
    );
    const socket = new WebSocket(
      `ws://127.0.0.1:${server.port}/v1/machines/web/console`,
      ['livesnap', `session.${session.body.secret}`],
      { origin: server.url! },
    );
    const messages: { data: string; isBinary: boolean }[] = [];
    socket.on('message', (data, isBinary) => messages.push({ data: data.toString(), isBinary }));
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    assert.equal(socket.protocol, 'livesnap', 'the session is not sent back');
    const text = (): string => messages.map(({ data }) => data).join('');
    socket.send('sum 1\n');
    while (!/SUM/.test(text())) await sleep(20);
    const closed = new Promise<number>((resolve) => {
      socket.once('close', resolve);
    });
    await server.ask('/v1/machines/web/stop', { body: { force: true } });
    assert.equal(await closed, 1000);
    const last = messages.at(-1)!;
    assert.equal(last.isBinary, false);
    assert.deepEqual(JSON.parse(last.data), { end: 'stopped', error: null });
  });

  it('refuses what it does not know, and names it', async () => {
    server = await Serving.start(world);
    await putKernel();
    const refused = async (status: number, detail: RegExp, path: string, asked: Asked): Promise<void> => {
      const answer = await server.ask(path, asked);
      assert.equal(answer.status, status, `${path}: ${JSON.stringify(answer.body)}`);
      assert.match(answer.type, /^application\/problem\+json/);
      assert.match(answer.body.detail as string, detail);
      if ([400, 415, 422].includes(status)) assert.ok(answer.body.hint, `${path} has no hint: ${detail}`);
    };
    const kernel = { snapshot: 'kernel' };
    await refused(400, /unknown field "color"/, '/v1/machines', { body: { kernel, color: 'red' } });
    await refused(400, /cpus.*integer/, '/v1/machines', { body: { kernel, cpus: '2' } });
    await refused(400, /kernel/, '/v1/machines', { body: {} });
    await refused(403, /tap "tap0" is not allowed/, '/v1/machines', {
      body: { kernel, nets: [{ tap: 'tap0' }] },
    });
    const low = [{ user: { forwards: [{ hostPort: 80, guestPort: 80 }] } }];
    await refused(403, /port 80 is not allowed/, '/v1/machines', { body: { kernel, nets: low } });
    await refused(400, /not JSON/, '/v1/machines', { body: '{' });
    await refused(400, /not JSON/, '/v1/machines', { body: '{"__proto__":{"x":1}}' });
    await refused(413, /too long/, '/v1/machines', { body: { kernel, cmdline: 'x'.repeat(70_000) } });
    await refused(415, /unknown type/, '/v1/machines', {
      body: 'x',
      headers: { 'content-type': 'text/xml' },
    });
    await refused(403, /not allowed/, '/v1/machines', { body: { kernel: { path: '/etc/passwd' } } });
    const initrd = { path: '/etc/passwd' };
    await refused(403, /not allowed/, '/v1/machines', { body: { kernel, initrd } });
    await refused(404, /"absent"/, '/v1/machines', { body: { kernel: { snapshot: 'absent' } } });
    await refused(400, /a size of memory|memory/, '/v1/machines', { body: { kernel, memoryBytes: 4097 } });
    await refused(400, /holds a file/, '/v1/snapshots/kernel/restore', { method: 'POST' });
    await refused(404, /no machine web/, '/v1/machines/web', {});
    await refused(404, /No route/, '/v2', {});
    await refused(404, /No route/, '/v1/machines/../../etc/passwd', {});
    await refused(404, /no snapshot/, '/v1/snapshots/%2e%2e%2f%2e%2e%2fetc', {});
    await refused(400, /state/, '/v1/machines?state=tired', {});
    await refused(400, /unknown field "q"/, '/v1/machines?q=1', {});
    await refused(400, /tag/, '/v1/tags/a%20b', { method: 'PUT', body: { snapshot: 'kernel' } });
    await refused(400, /the field job of the path/, '/v1/jobs/x', {});
    writeFileSync(join(world.dir, 'text'), 'no kernel');
    await world.json('put', join(world.dir, 'text'), '--tag', 'text');
    await refused(422, /^the file of snapshot text is neither/, '/v1/machines', {
      body: { kernel: { snapshot: 'text' } },
    });
  });

  it('opens files of the host below an allowed directory only', async () => {
    const path = probe('probe.bzImage');
    server = await Serving.start(world, '--allow', join(path, '..'));
    const started = await server.ask('/v1/machines', { body: { kernel: { path }, memoryBytes: 32 << 20 } });
    assert.equal(started.status, 201);
    const wrong = await server.ask('/v1/machines', { body: { kernel: { path: `${path}/../../Makefile` } } });
    assert.equal(wrong.status, 403);
    writeFileSync(join(world.dir, 'text'), 'no kernel');
    await server.end();
    server = await Serving.start(world, '--allow', world.dir);
    const text = await server.ask('/v1/machines', { body: { kernel: { path: join(world.dir, 'text') } } });
    assert.deepEqual([text.status, text.body.code], [422, 'BAD_IMAGE']);
    assert.ok(
      (text.body.detail as string).includes(join(world.dir, 'text')),
      'it has the name that was given',
    );
  });

  it('answers nobody over TCP without the token, and no page from elsewhere', async () => {
    server = await Serving.start(world);
    const { bearer } = server;
    assert.equal((await server.askTcp('/healthz')).status, 200);
    for (const path of ['/v1/machines', '/metrics', '/openapi.json', '/v1/nothing']) {
      const answer = await server.askTcp(path);
      assert.equal(answer.status, 401, path);
      assert.equal(answer.headers['www-authenticate'], 'Bearer');
    }
    assert.equal((await server.askTcp('/v1/machines', { headers: bearer })).status, 200);
    for (const headers of [
      { ...bearer, host: 'evil.example' },
      { ...bearer, host: `evil.example:${server.port}` },
      { ...bearer, origin: 'http://evil.example' },
      { ...bearer, origin: 'null' },
    ])
      assert.equal((await server.askTcp('/v1/machines', { headers })).status, 403, JSON.stringify(headers));
    assert.equal((await server.askTcp('/healthz', { headers: { host: 'evil.example' } })).status, 403);

    const upgrade = (
      options: { headers?: Record<string, string>; origin?: string },
      ...protocols: string[]
    ) =>
      new Promise<number>((resolve, reject) => {
        const socket = new WebSocket(
          `ws://127.0.0.1:${server.port}/v1/machines/web/console`,
          protocols,
          options,
        );
        socket.once('unexpected-response', (request, response) => {
          request.destroy();
          resolve(response.statusCode!);
        });
        socket.once('open', () => reject(new Error('it was opened')));
        socket.on('error', () => {});
      });
    assert.equal(await upgrade({}), 401);
    assert.equal(await upgrade({}, 'livesnap', 'session.s1.zzzzzzzz.AAAAAAAAAAAAAAAAAAAAAA.x'), 401);
    assert.equal(await upgrade({ headers: bearer, origin: 'http://evil.example' }), 403);
    assert.equal(await upgrade({ headers: bearer }), 404, 'no such machine');
    assert.equal(
      (server.log().match(/the page "http:\/\/evil\.example" are not allowed/g) ?? []).length,
      2,
      server.log(),
    );
    assert.doesNotMatch(server.log(), new RegExp(server.token));
  });

  it('goes on while clients send half of a request, or no end of it', async () => {
    server = await Serving.start(world);
    const halves = Array.from({ length: 2000 }, () => {
      const half = connectTcp(server.port, '127.0.0.1');
      half.on('error', () => {});
      half.write('POST /v1/machines HTTP/1.1\r\nHost: 127.0.0.1\r\n');
      return half;
    });
    await sleep(200);
    assert.equal((await server.ask('/v1/machines')).status, 200, 'over the socket');
    // The first connections are ended when their time is over, and then others are accepted.
    for (;;) {
      const answer = await server.askTcp('/healthz').catch(() => null);
      if (answer?.status === 200) break;
      await sleep(100);
    }
    for (const half of halves) half.destroy();
    assert.equal((await server.ask('/v1/machines', { body: 'x'.repeat(200_000) })).status, 413);
    assert.equal(await server.end(), 0);
  });

  it('streams what changes, and goes on after the last event that a client knows', async () => {
    server = await Serving.start(world);
    await putKernel();
    const stream = await Stream.open(server);
    const [first] = await stream.take((event) => event === 'state');
    assert.deepEqual(
      [first!.data.machines, first!.data.snapshots!.map(({ tags }) => tags)],
      [[], [['kernel']]],
    );
    await start('web');
    await stream.take((event) => event === 'machine-started');
    await stream.take((event) => event === 'usage');
    const save = await server.ask('/v1/machines/web/save', { body: { tags: ['first'] } });
    assert.equal(save.status, 202);
    const saved = await stream.take((event) => event === 'snapshot-saved');
    await stream.take((event, { snapshots }) => event === 'store' && snapshots === (2 as unknown));
    const [unique] = (await stream.take((event) => event === 'unique-bytes')).slice(-1);
    assert.equal(Object.keys(unique!.data).length, 2);
    stream.close();
    await server.ask('/v1/machines/web/pause', { method: 'POST' });
    const knows = await Stream.open(server, { ...server.bearer, 'last-event-id': saved.at(-1)!.id! });
    const later = await knows.take((event) => event === 'machine-paused');
    assert(!later.some(({ event }) => event === 'state'));
    knows.close();
    const unknown = await Stream.open(server, { ...server.bearer, 'last-event-id': 'f00-1' });
    assert.equal((await unknown.take(() => true))[0]!.event, 'state');
    const overview = await server.ask<{ machines: MachineBody[] }>('/v1/overview');
    assert.deepEqual(
      overview.body.machines.map(({ name, state }) => [name, state]),
      [['web', 'paused']],
    );
    assert.equal((await server.askTcp('/v1/events')).status, 401);
    assert.equal(await server.end(), 0, 'a stream does not keep it');
  });

  it('connects machines to the networks that it may use', async () => {
    const hostPort = await freePort();
    server = await Serving.start(world, '--tap', 'livesnap-none', '--ports', String(hostPort));
    await putKernel();
    const common = { kernel: { snapshot: 'kernel' }, memoryBytes: 32 << 20 };
    const missing = await server.ask('/v1/machines', {
      body: { ...common, nets: [{ tap: 'livesnap-none' }] },
    });
    assert.match(
      missing.body.detail as string,
      /livesnap-none/,
      'it is allowed, but the host has no such tap',
    );
    const started = await server.ask<MachineBody>('/v1/machines', {
      body: { ...common, name: 'net', nets: [{ user: { forwards: [{ hostPort, guestPort: 80 }] } }] },
    });
    if (started.status !== 201) {
      assert.match((started.body as unknown as { detail: string }).detail, /passt is not installed/);
      return;
    }
    const [net] = (await world.json<{ nets: { backend: string }[] }>('show', 'net')).nets;
    assert.match(net!.backend, /^user/);
  });

  it('does long work in jobs that outlive it, can be cancelled, and answers when they are done if asked', async () => {
    const other = join(world.dir, 'other');
    server = await Serving.start(world, '--remote', `other=${other}`);
    await putKernel();
    await start('web');
    const save = await server.ask<Job>('/v1/machines/web/save', { body: { tags: ['first'] } });
    assert.deepEqual([save.status, save.body.kind, save.body.subject], [202, 'save', 'web']);
    assert.equal(save.headers.location, `/v1/jobs/${save.body.id}`);
    const saved = await ended(save.body.id);
    assert.deepEqual(saved.state, 'done');
    assert.deepEqual((saved.result as { tags: string[] }).tags, ['first']);

    const copy = await server.ask<Job>('/v1/store/copy', { body: { to: 'other' } });
    assert.deepEqual([copy.status, copy.body.subject], [202, 'other']);
    await server.end('SIGKILL');
    server = await Serving.start(world);
    assert.equal((await ended(copy.body.id)).state, 'done');
    assert.equal((await world.json<unknown[]>('--store', other, 'ls')).length, 2);
    const unknown = await server.ask('/v1/store/copy', { body: { to: 'other' } });
    assert.equal(unknown.status, 400, 'it is named at the start');

    const check = await server.ask('/v1/store/check', { body: { readData: true }, headers: WAIT });
    assert.deepEqual([check.status, check.body.ok], [200, true]);
    const dry = await server.ask('/v1/store/forget', { body: { keep: { last: 1 }, dryRun: true } });
    assert.equal(dry.status, 200);
    const none = await server.ask<Job>('/v1/store/forget', { body: { keep: {} } });
    assert.match((await ended(none.body.id)).problem!.detail, /no rule/);
    const jobs = await server.ask<Job[]>('/v1/jobs');
    assert.deepEqual(jobs.body.map(({ kind }) => kind).sort(), ['check', 'copy', 'forget', 'save']);
    for (const { id } of jobs.body)
      assert.equal((await server.ask(`/v1/jobs/${id}`, { method: 'DELETE' })).status, 204);
    assert.deepEqual((await server.ask('/v1/jobs')).body, []);
    assert.equal((await server.ask(`/v1/jobs/${save.body.id}`)).status, 404);
    for (const id of ['..', 'x', `${'a'.repeat(32)}-0x1`, '%2e%2e%2fweb'])
      assert.equal((await server.ask(`/v1/jobs/${id}`)).status, 400, id);
    assert.equal((await server.ask(`/v1/jobs/${'a'.repeat(32)}`)).status, 404);
  });

  it('sends a snapshot as an archive, takes one, and refuses what is none', async () => {
    const temporary = join(world.dir, 'temporary');
    mkdirSync(temporary);
    world.env.TMPDIR = temporary;
    server = await Serving.start(world, '--max-import', '64M');
    await putKernel();
    const { body: grant } = await server.ask<{ secret: string }>('/v1/tickets', {
      body: { path: '/v1/snapshots/kernel/export' },
    });
    const path = `/v1/snapshots/kernel/export?ticket=${grant.secret}`;
    const answer = await fetch(`${server.url}${path}`);
    assert.equal(answer.status, 200);
    assert.match(
      answer.headers.get('content-disposition')!,
      /attachment; filename="livesnap-[0-9a-f]{12}\.tar"/,
    );
    const archive = Buffer.from(await answer.arrayBuffer());
    assert.equal((await fetch(`${server.url}${path}`)).status, 401, 'a ticket works once');
    await server.ask('/v1/snapshots/kernel', { method: 'DELETE' });
    await server.ask('/v1/store/gc', { body: {}, headers: WAIT });
    const upload = (body: Uint8Array, headers: Record<string, string> = {}) =>
      fetch(`${server.url}/v1/snapshots`, {
        method: 'POST',
        body,
        headers: { ...server.bearer, 'content-type': 'application/x-tar', ...headers },
      });
    const job = (await (await upload(archive)).json()) as Job;
    assert.equal((await ended(job.id)).state, 'done');
    assert.equal((await server.ask('/v1/snapshots/kernel')).status, 200);
    assert.equal((await upload(archive.subarray(0, 5000), WAIT)).status, 422);
    assert.equal((await upload(Buffer.alloc(100_000, 1), WAIT)).status, 422);
    const changed = Buffer.from(archive);
    const at = changed.indexOf('packs/') + 512 + 5000;
    changed[at]! ^= 1;
    await server.ask('/v1/snapshots/kernel', { method: 'DELETE' });
    await server.ask('/v1/store/gc', { body: {}, headers: WAIT });
    assert.notEqual((await upload(changed, WAIT)).status, 200, 'a damaged page');
    assert.equal((await upload(archive, { 'content-type': 'application/json' })).status, 413);
    const endless = await endlessUpload(server);
    assert.match(endless.text, /more than 100000 entries/);
    assert.equal(endless.status, 422);
    assert.deepEqual(
      readdirSync(temporary).filter((name) => name.startsWith('livesnap-upload-')),
      [],
    );
  });

  it('signs a browser in with a code that works once, which no argument has', async () => {
    const silent = await world.run(['open']);
    assert.match(
      silent.stderr,
      /^livesnap: no server answers: \S+\/api\.sock does not exist\nStart one: livesnap serve\.\n$/,
    );
    server = await Serving.start(world);
    const address = new URL((await world.run(['open', '--print'])).stdout.trim());
    assert.equal(address.port, String(server.port));
    const code = address.hash.slice('#code='.length);
    const page = await server.askTcp<string>('/');
    assert.match(page.body, /<script type="module" src="\/app\/main-\w+\.js">/);
    const names = (): string[] =>
      readdirSync(dirname(server.socket)).filter((name) => name.startsWith('open-'));
    const [name] = names();
    const file = join(dirname(server.socket), name!);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert(readFileSync(file, 'utf8').includes(code));
    const session = await server.askTcp<{ secret: string }>('/v1/sessions', { body: { code } });
    assert.equal(session.status, 201);
    assert.deepEqual(names(), [], 'the file is gone with its code');
    assert.equal((await server.askTcp('/v1/sessions', { body: { code } })).status, 401, 'it works once');
    const headers = { authorization: `Bearer ${session.body.secret}` };
    assert.equal((await server.askTcp('/v1/overview', { headers })).status, 200);
    assert.equal((await server.askTcp('/v1/codes', { method: 'POST', headers })).status, 403);
    await server.end();
    server = await Serving.start(world, '--listen', 'none');
    assert.match((await world.run(['open'])).stderr, /its Unix socket alone/);
  });

  it('listens on its socket alone, if asked', async () => {
    server = await Serving.start(world, '--listen', 'none');
    assert.equal(server.url, null);
    assert.deepEqual((await server.ask('/v1/machines')).body, []);
  });

  it('is one for each user, and needs encryption beyond loopback', async () => {
    server = await Serving.start(world);
    const refusal = async (...args: string[]): Promise<string> => {
      const { status, stderr } = await world.run(['serve', ...args]);
      assert.notEqual(status, 0);
      assert.doesNotMatch(stderr, /internal error/);
      return stderr;
    };
    assert.match(await refusal(), /a server of this user is running already/);
    await server.end('SIGKILL');
    assert.match(await refusal('--listen', '0.0.0.0:0'), /not served on 0.0.0.0 without encryption/);
    assert.match(await refusal('--listen', '127.0.0.1:0', '--tls-cert', 'x'), /belong together/);
    assert.match(
      await refusal('--listen', '127.0.0.1:0', '--public-url', 'http://x'),
      /not the https address/,
    );
    assert.match(await refusal('--listen', '127.0.0.1:0', '--allow', '/absent'), /\/absent does not exist/);
    assert.match(await refusal('--listen', '127.0.0.1:99999'), /not an address and a port/);
    const tls = ['--tls-cert', join(world.dir, 'cert.pem'), '--tls-key', join(world.dir, 'key.pem')];
    assert.match(await refusal('--listen', '127.0.0.1:0', ...tls), /cert\.pem cannot be read/);
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
        ...['-subj', '/CN=vms', '-addext', 'subjectAltName=DNS:vms.example.org,IP:127.0.0.1'],
        ...['-keyout', join(world.dir, 'key.pem'), '-out', join(world.dir, 'cert.pem')],
      ],
      { stdio: 'ignore' },
    );
    server = await Serving.start(world, ...tls);
    assert.match(server.url!, /^https:\/\/vms\.example\.org:\d+$/);
    await assert.rejects(server.askTcp('/healthz'), 'plain HTTP');
  });
});
