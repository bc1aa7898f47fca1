/** Machines: their start, state, names and end. Consoles: console.test.ts. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe } from '../kvm/kvm.js';
import { guestThatEnds, guestThatFails } from '../kvm/small-guests.js';
import { ending, hearing, type World, worldOfEachTest } from './cli.js';
import { alive, gone } from './processes.js';

interface Started {
  id: string;
  name: string;
  pid: number;
  readyMs: number;
}

describe('a machine', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const KERNEL = probe('probe.elf');
  const start = (name: string, ...more: string[]) => world.start<Started>(name, more);

  it('is found by its ID, or by the beginning of that', async () => {
    const { id } = await world.start<{ id: string }>('web');
    assert.deepEqual(await world.json('pause', id), { name: 'web', state: 'paused' });
    assert.deepEqual(await world.json('resume', id.slice(0, 6)), { name: 'web', state: 'running' });
    assert.match(await world.ask(id.slice(0, 12), 'cpus', /^CPUS/), /^CPUS \d+$/);
    await world.json('save', id, '--then', 'stop');
    assert.deepEqual(world.machines(), []);
    await world.fails(3, 'NO_SUCH_MACHINE', ['pause', id]);
  });

  it('is started, listed, paused, resumed and stopped', async () => {
    const { id, name, pid, readyMs } = await start('a', '--cpus', '2', '--label', 'course=os');
    assert.match(id, /^[0-9a-f]{32}$/);
    assert.equal(name, 'a');
    assert.ok(alive(pid) && readyMs > 0);
    const [row, ...others] = await world.json<Record<string, unknown>[]>('ps');
    assert.deepEqual(others, []);
    assert.ok((row!.cpuSeconds as number) > 0 && (row!.touchedBytes as number) > 0);
    assert.deepEqual(
      { ...row, startedAt: typeof row!.startedAt, ...{ cpuSeconds: 1, touchedBytes: 1 } },
      {
        ...{ cpuSeconds: 1, touchedBytes: 1 },
        id,
        name: 'a',
        labels: { course: 'os' },
        pid,
        state: 'running',
        memoryBytes: 64 << 20,
        cpus: 2,
        dirtyBytes: null,
        startedAt: 'string',
        endsAt: null,
        failedAt: null,
        snapshot: null,
      },
    );
    assert.deepEqual(await world.json('pause', 'a'), { name: 'a', state: 'paused' });
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'paused');
    assert.deepEqual(await world.json('resume', 'a'), { name: 'a', state: 'running' });
    await world.ask('a', 'cpus', /^CPUS \d+,\d+$/);
    assert.deepEqual(await world.json('stop', 'a'), {
      ...{ name: 'a', state: 'stopped', how: 'ended', reason: 'noPowerButton', lostSaves: 0 },
    });
    assert.equal(alive(pid), false, 'stop waits for the end of the process');
    assert.deepEqual(world.machines(), []);
    assert.deepEqual(await world.json('ps'), []);
  });

  it('is started with legacy options, and gets a random name', async () => {
    const ran = await world.run([
      '--memory',
      'size_mib=64',
      '--vcpu',
      'num=2',
      '--kernel',
      `path=${KERNEL},cmdline=console=ttyS0,kernel_load_addr=1048576`,
      '--detach',
    ]);
    assert.equal(ran.status, 0, ran.stderr);
    const name = ran.stdout.trimEnd();
    assert.match(name, /^[a-z]+-[a-z]+$/);
    assert.match(ran.stderr, /kernel_load_addr has no effect/);
    await world.ask(name, 'cpus', /^CPUS \d+,\d+$/);
  });

  it('has a name that no other machine has', async () => {
    await start('a');
    await world.fails(2, 'NAME_IN_USE', ['start', '--kernel', KERNEL, '--name', 'a', '--detach']);
    assert.deepEqual(world.machines(), ['a']);
    const both = await Promise.all(
      [1, 2, 3].map(() =>
        world.run(['start', '--kernel', KERNEL, '--memory', '64M', '--name', 'b', '--detach']),
      ),
    );
    assert.deepEqual(both.map(({ status }) => status).sort(), [0, 2, 2]);
  });

  it('ignores SIGUSR1, which would open the inspector of Node', async () => {
    const { pid } = await start('a');
    process.kill(pid, 'SIGUSR1');
    const log = join(world.runDir, 'livesnap/a/log');
    while (!/SIGUSR1|[Dd]ebugger/.test(readFileSync(log, 'utf8'))) await sleep(10);
    await world.ask('a', 'cpus', /^CPUS/);
    assert.doesNotMatch(readFileSync(log, 'utf8'), /debugger/i);
  });

  it('ends cleanly at SIGTERM', async () => {
    const { pid } = await start('a');
    process.kill(pid, 'SIGTERM');
    await gone(pid);
    assert.deepEqual(world.machines(), []);
  });

  it('is shown as gone when its process was killed, and its name can be used again', async () => {
    const { pid } = await start('a');
    process.kill(pid, 'SIGKILL');
    await gone(pid);
    const [row] = await world.json<Record<string, unknown>[]>('ps');
    assert.deepEqual([row!.name, row!.state, row!.pid, row!.memoryBytes], ['a', 'gone', pid, 64 << 20]);
    await world.fails(1, 'MACHINE_GONE', ['console', 'a']);
    await world.fails(1, 'MACHINE_GONE', ['save', 'a']);
    const again = await start('a');
    assert.notEqual(again.pid, pid);
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'running');
    process.kill(again.pid, 'SIGKILL');
    await gone(again.pid);
    assert.deepEqual(await world.json('stop', 'a'), { name: 'a', state: 'gone' });
    assert.deepEqual(world.machines(), []);
  });

  for (const command of ['halt', 'reset']) {
    it(`ends with exit status 0 at a ${command} by the guest`, async () => {
      const { pid } = await start('a');
      const ran = await world.run(['console', 'a'], `${command}\n`);
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, /PROBE READY nonce=/);
      await gone(pid);
      assert.deepEqual(world.machines(), []);
    });
  }

  it('shows its console in the foreground, and ends with the command at SIGTERM and SIGHUP', async () => {
    for (const signal of ['SIGTERM', 'SIGHUP'] as const) {
      const child = world.spawn('start', '--kernel', KERNEL, '--memory', '64M', '--name', 'f');
      const ran = ending(child);
      await hearing(child, 'stdout', /TICK 2 /);
      const [row] = await world.json<{ pid: number }[]>('ps');
      child.kill(signal);
      assert.equal((await ran).status, 0);
      assert.deepEqual(world.machines(), []);
      await gone(row!.pid);
    }
  });

  it('shows all of its output and its end even if it ends at once', async () => {
    const silent = guestThatEnds(join(world.dir, 'silent.elf'), '');
    const talking = guestThatEnds(join(world.dir, 'talking.elf'), 'last words\r\nunfinished');
    const failing = guestThatFails(join(world.dir, 'failing.elf'), 'last words\n');
    const run = (kernel: string, ...more: string[]) =>
      world.run(['start', '--kernel', kernel, '--memory', '64M', '--quiet', ...more]);
    for (let time = 0; time < 4; time++) {
      const [none, some, failed] = await Promise.all([run(silent), run(talking), run(failing)]);
      assert.deepEqual(none, { status: 0, stdout: '', stderr: '' });
      assert.deepEqual(some, { status: 0, stdout: 'last words\r\nunfinished', stderr: '' });
      assert.equal(failed.stdout, 'last words\n');
      assert.equal(failed.status, 1);
      assert.match(failed.stderr, /^livesnap: .* at 0xc0000000 .*\n$/);
      const json = await run(silent, '--json');
      assert.equal(json.status, 0, json.stdout);
      assert.equal((await run(silent, '--detach')).status, 0);
    }
  });

  it('is waited for in the foreground with --json', async () => {
    const child = world.spawn('start', '--kernel', KERNEL, '--memory', '64M', '--name', 'f', '--json');
    const ran = ending(child);
    await hearing(child, 'stdout', /\n/);
    await world.run(['console', 'f'], 'halt\n');
    const { status, stdout } = await ran;
    assert.equal(status, 0);
    assert.equal(JSON.parse(stdout).name, 'f');
  });

  it('does not outlive a start that is killed before it runs', async () => {
    const child = world.spawn('start', '--kernel', KERNEL, '--memory', '64M', '--name', 'x', '--detach');
    const ran = ending(child);
    while (world.machines().length === 0) await sleep(1);
    child.kill('SIGKILL');
    await ran;
    // It had reported that it runs, or it leaves nothing behind.
    for (;;) {
      const rows = await world.json<{ state: string }[]>('ps');
      if (rows.length === 0 || rows[0]!.state === 'running' || rows[0]!.state === 'gone') break;
    }
  });

  it('answers on its socket, and on its loopback port unless a web page of another host asks', async () => {
    const port = 20_000 + (process.pid % 20_000);
    await start('a', '--port', String(port));
    const get = (options: object) =>
      new Promise<{ status: number; body: string }>((resolve, reject) => {
        const sent = request({ path: '/machine', agent: false, ...options }, (response) => {
          let body = '';
          response.setEncoding('utf8').on('data', (part) => {
            body += part;
          });
          response.on('end', () => resolve({ status: response.statusCode!, body }));
        });
        sent.on('error', reject);
        sent.end();
      });
    const overSocket = await get({ socketPath: join(world.runDir, 'livesnap/a/control.sock') });
    assert.equal(JSON.parse(overSocket.body).name, 'a');
    assert.equal((await get({ host: '127.0.0.1', port })).status, 401);
    const headers = { authorization: `Bearer ${world.token()}` };
    const overTcp = await get({ host: '127.0.0.1', port, headers });
    assert.equal(JSON.parse(overTcp.body).pid, JSON.parse(overSocket.body).pid);
    assert.equal((await get({ host: '127.0.0.1', port, headers: { host: 'evil.example' } })).status, 403);
    await world.fails(2, 'NAME_IN_USE', [
      'start',
      '--kernel',
      KERNEL,
      '--name',
      'b',
      '--detach',
      '--port',
      `${port}`,
    ]);
    assert.deepEqual(world.machines(), ['a']);
  });

  it('whose run directory was removed leaves a new machine of the same name alone', async () => {
    const first = await start('a');
    rmSync(join(world.runDir, 'livesnap/a'), { recursive: true });
    const second = await start('a');
    assert.notEqual(second.pid, first.pid);
    process.kill(first.pid, 'SIGTERM');
    await gone(first.pid);
    assert.deepEqual(
      (await world.json<{ pid: number; state: string }[]>('ps')).map(({ pid, state }) => [pid, state]),
      [[second.pid, 'running']],
    );
    await world.json('stop', 'a');
  });

  it('with an unusable kernel is refused, and leaves nothing behind', async () => {
    const file = (name: string, bytes: Uint8Array | string): string => {
      const path = join(world.dir, name);
      writeFileSync(path, bytes);
      return path;
    };
    const bzImage = readFileSync(probe('probe.bzImage'));
    const elf = readFileSync(KERNEL);
    const foreign = Buffer.from(elf);
    foreign.writeUInt16LE(183, 18); // e_machine: AArch64
    const images = {
      truncated: file('truncated', bzImage.subarray(0, bzImage.length / 2)),
      stump: file('stump', bzImage.subarray(0, 600)),
      foreign: file('foreign', foreign),
      text: file('text', 'This is a text file, not a kernel.\n'.repeat(100)),
      empty: file('empty', ''),
    };
    for (const [kind, path] of Object.entries(images)) {
      const { message } = await world.fails(1, 'BAD_IMAGE', ['start', '--kernel', path, '--detach']);
      assert.ok(message.includes(path), `${kind}: ${message}`);
      assert.ok(!message.includes('\n'));
    }
    await world.fails(2, 'USAGE', ['start', '--kernel', KERNEL, '--cpus', '10000', '--detach']);
    assert.deepEqual(world.machines(), []);
    assert.equal(existsSync(world.store), false, 'a start makes no store');
    assert.deepEqual(await world.json('ps'), []);
  });
});
