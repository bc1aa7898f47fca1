/** `livesnap serve --original`: the API of the program that livesnap replaces, with the bodies of its collection. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { hearing, type World, worldOfEachTest } from './cli.js';
import { freePort } from './free-port.js';

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

describe('livesnap serve --original', function () {
  this.timeout(120_000);
  let world: World;
  let child: ChildProcess;
  let port: number;
  let images: string;
  let log = '';
  worldOfEachTest((made) => {
    world = made;
  });
  beforeEach(async () => {
    images = join(world.dir, 'images');
    mkdirSync(images);
    copyFileSync(probe('probe.bzImage'), join(images, 'bzImage'));
    writeFileSync(join(world.dir, 'starter'), 'login {{username}} {{ip}}\nsum 4\n');
    port = await freePort();
    child = world.spawn(
      ...['serve', '--listen', 'none', '--allow', images, '--original', String(port), '--json'],
      ...['--starter-file', join(world.dir, 'starter')],
    );
    log = '';
    child.stderr!.on('data', (part) => {
      log += part;
    });
    assert.match(
      await hearing(child, 'stdout', /\n/),
      new RegExp(`"originalUrl":"http://127.0.0.1:${port}"`),
    );
  });
  afterEach(() => {
    child.kill('SIGKILL');
  });

  const post = (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const sent = request({
        ...{ host: '127.0.0.1', port, path, method: 'POST', agent: false },
        headers: { 'content-type': 'application/json', ...headers },
      });
      sent.once('error', reject);
      sent.once('response', (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part) => {
          text += part;
        });
        response.once('end', () => resolve({ status: response.statusCode!, body: JSON.parse(text) }));
      });
      sent.end(typeof body === 'string' ? body : JSON.stringify(body));
    });

  const create = () => ({
    kernel_path: join(images, 'bzImage'),
    cpu_snapshot_path: '/tmp/snapshots/cpu.snap',
    memory_snapshot_path: '/tmp/snapshots/memory.snap',
    resume: false,
    config: { username: 'student', password: 'secret', id: 3 },
  });

  it('boots a machine with the starter file filled in, saves it, and restores it by the same paths', async () => {
    const { status, body } = await post('/create', create());
    assert.equal(status, 200);
    const { pid, port: rpc } = body as { pid: number; port: number };
    assert(Number.isInteger(pid) && Number.isInteger(rpc) && rpc > 0);
    const [machine] = await world.json<{ name: string; pid: number }[]>('ps');
    assert.equal(machine!.pid, pid);
    const answer = await fetch(`http://127.0.0.1:${rpc}/machine`, {
      headers: { authorization: `Bearer ${world.token()}` },
    });
    assert.equal(((await answer.json()) as { pid: number }).pid, pid, 'the port is that of its control API');

    const paths = {
      cpu_snapshot_path: '/tmp/snapshots/cpu.snap',
      memory_snapshot_path: '/tmp/snapshots/memory.snap',
    };
    const saved = await post('/snapshot', { ...paths, rpc_port: rpc, resume: true });
    assert.deepEqual(saved, { status: 200, body: 'Snapshot taken successfully' });
    const [snapshot] = await world.json<{ tags: string[] }[]>('ls');
    assert.match(snapshot!.tags[0]!, /^cpu-[0-9a-f]{12}$/);
    await world.json('stop', '--force', machine!.name);

    const lacking = await post('/create', {
      ...{ ...create(), resume: true },
      memory_snapshot_path: 'memory.snap',
    });
    assert.match(
      JSON.stringify(lacking.body),
      /nothing was saved as \/tmp\/snapshots\/cpu\.snap and memory\.snap\. /,
    );

    const restored = await post('/create', { ...create(), resume: true });
    assert.equal(restored.status, 200);
    assert.notEqual((restored.body as { pid: number }).pid, pid);
    const paused = await post('/snapshot', {
      ...paths,
      rpc_port: (restored.body as { port: number }).port,
      resume: false,
    });
    assert.equal(paused.status, 200);
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'paused');
    assert.match(log, /warning: http:\/\/127\.0\.0\.1:\d+ needs no token/);
  });

  it('answers errors in its form, also for a save that fails', async () => {
    const refused = async (path: string, body: unknown, status: number, headers = {}): Promise<string> => {
      const answer = await post(path, body, headers);
      const { error } = answer.body as { error: { code: number; reason: string; description: string } };
      assert.deepEqual(
        [answer.status, error.code, Object.keys(error)],
        [status, status, ['code', 'reason', 'description']],
      );
      return error.description;
    };
    assert.match(
      await refused(
        '/snapshot',
        { cpu_snapshot_path: 'a', memory_snapshot_path: 'a', rpc_port: 9, resume: true },
        404,
      ),
      /no machine has its API on port 9/,
    );
    assert.match(
      await refused('/create', { ...create(), resume: true }, 404),
      /there is no store at|no snapshot "cpu-/,
    );
    assert.match(await refused('/create', { ...create(), config: null }, 400), /{{username}} has no value/);
    assert.match(
      await refused('/create', { ...create(), tap_device: 'tap0' }, 403),
      /tap "tap0" is not allowed/,
    );
    const unknown = await refused('/create', { ...create(), extra: 1 }, 400);
    assert.match(unknown, /unknown field "extra"/);
    assert.doesNotMatch(unknown, /openapi/); // The port has none.
    assert.match(
      await refused('/create', { ...create(), kernel_path: 'probe' }, 403),
      /absolute path .*--allow DIR/,
    );
    assert.match(await refused('/create', { ...create(), resume: 'true' }, 400), /resume/);
    assert.match(await refused('/create', '{', 400), /not JSON\. docs\/server\.md shows the requests\.$/);
    assert.match(await refused('/nowhere', {}, 404), /POST \/create/);
    assert.match(
      await refused('/create', { ...create(), config: { ...create().config, username: 'a\nsum' } }, 400),
      /line end/,
    );
    await refused('/create', { ...create(), config: { ...create().config, id: 56 } }, 400);
    // A page of a browser cannot send JSON elsewhere without asking first.
    await refused('/create', create(), 415, { 'content-type': 'text/plain' });
    await refused('/create', create(), 403, { host: 'evil.example' });
    await refused('/create', create(), 403, { origin: 'http://evil.example' });
    symlinkSync('/etc/passwd', join(images, 'link'));
    const answers = new Set<string>();
    for (const kernel_path of [
      '/etc/shadow',
      '/nowhere',
      join(images, 'link'),
      join(images, '../starter'),
      images,
    ])
      answers.add(await refused('/create', { ...create(), kernel_path }, 403));
    assert.equal(answers.size, 1, 'one answer, whether it exists or not');
    assert.deepEqual(await world.json('ps'), []);
  });
});
