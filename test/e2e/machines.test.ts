/** Machines through the built command line: their processes, consoles, control sockets and ends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe, requireKvm } from '../kvm/kvm.js';
import { guestThatEnds, guestThatFails } from '../kvm/small-guests.js';
import { ending, hearing, MAIN, World } from './cli.js';

interface Started {
  name: string;
  pid: number;
  readyMs: number;
}

/** Whether the process is there; one that only waits to be reaped is not. */
const alive = (pid: number): boolean => {
  try {
    return !/\) [ZX] [^)]*$/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
};

const gone = async (pid: number): Promise<void> => {
  while (alive(pid)) await sleep(10);
};

describe('machines', function () {
  this.timeout(120_000);
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const KERNEL = probe('probe.elf');
  const start = (name: string, ...more: string[]) =>
    world.json<Started>('start', '--kernel', KERNEL, '--memory', '64M', '--detach', '--name', name, ...more);

  it('are started, listed, paused, resumed and stopped', async () => {
    const { name, pid, readyMs } = await start('a', '--cpus', '2');
    assert.equal(name, 'a');
    assert.ok(alive(pid) && readyMs > 0);
    const [row, ...others] = await world.json<Record<string, unknown>[]>('ps');
    assert.deepEqual(others, []);
    assert.deepEqual(
      { ...row, startedAt: typeof row!.startedAt },
      {
        name: 'a',
        pid,
        state: 'running',
        memoryBytes: 64 << 20,
        cpus: 2,
        startedAt: 'string',
        snapshot: null,
      },
    );
    assert.deepEqual(await world.json('pause', 'a'), { name: 'a', state: 'paused' });
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'paused');
    assert.deepEqual(await world.json('resume', 'a'), { name: 'a', state: 'running' });
    await world.ask('a', 'cpus', /^CPUS \d+,\d+$/);
    assert.deepEqual(await world.json('stop', 'a'), { name: 'a', state: 'stopped' });
    assert.equal(alive(pid), false, 'stop waits for the end of the process');
    assert.deepEqual(world.machines(), []);
    assert.deepEqual(await world.json('ps'), []);
  });

  it('take the original’s spellings, and a name of their own', async () => {
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

  it('have a name each', async () => {
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

  it('end cleanly at SIGTERM', async () => {
    const { pid } = await start('a');
    process.kill(pid, 'SIGTERM');
    await gone(pid);
    assert.deepEqual(world.machines(), []);
  });

  it('that were killed are shown as gone, and their names can be used again', async () => {
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
    it(`that ${command} themselves end well`, async () => {
      const { pid } = await start('a');
      const ran = await world.run(['console', 'a'], `${command}\n`);
      assert.equal(ran.status, 0, ran.stderr);
      assert.match(ran.stdout, /PROBE READY nonce=/);
      await gone(pid);
      assert.deepEqual(world.machines(), []);
    });
  }

  it('answer each question with what is said after it', async () => {
    await start('a');
    const first = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    await world.ask('a', 'fill 1 1', /^OK/);
    const second = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    assert.notEqual(first, second, 'the second answer is not the first one again');
    const late = await world.run(['console', 'a', '--until', '^NEVER', '--timeout', '0.3']);
    assert.equal(late.status, 1);
    assert.match(late.stderr, /in time/);
    const ended = world.run(['console', 'a', '--until', '^NEVER', '--json']);
    await sleep(100);
    await world.json('stop', 'a');
    const { status, stdout } = await ended;
    assert.equal(status, 1);
    assert.match(stdout, /"code":"MACHINE_GONE"/);
  });

  it('whose guest does not read its input are left all the same', async () => {
    await start('a');
    // More than the machine keeps for its guest and the sockets hold.
    const much = 'x'.repeat(8 << 20);
    await world.json('pause', 'a');
    const ran = await world.run(['console', 'a', '--until', '^NEVER', '--timeout', '1'], much);
    assert.equal(ran.status, 1);
    assert.match(ran.stderr, /Input that the guest did not read in time was discarded\.\nlivesnap: no line/);
    const script = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv('/bin/sh', ['sh', '-c', 'stty raw; "$0" "$1" console a; echo status $?', *sys.argv[1:]])
seen = b''
while b'Ctrl-A x leaves' not in seen: seen += os.read(fd, 4096)
os.set_blocking(fd, False)
left = b'x' * (4 << 20) + b'\\x01x'
import select
while True:
    readable, writable, _ = select.select([fd], [fd] if left else [], [])
    if writable: left = left[os.write(fd, left[:4096]):]
    if not readable: continue
    try: part = os.read(fd, 4096)
    except OSError: break
    if not part: break
    seen += part
sys.stdout.buffer.write(seen)
`;
    const typed = await ending(
      spawn('python3', ['-c', script, process.execPath, MAIN], { env: world.env, cwd: world.dir }),
    );
    assert.match(typed.stdout, /was discarded/, typed.stderr);
    assert.match(typed.stdout, /status 0/);
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'paused');
  });

  it('in the foreground show their console and end at SIGTERM', async () => {
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

  it('that end before anybody can join show all of their output and the same end, every time', async () => {
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
      assert.match(failed.stderr, /^livesnap: .* at 0xd0000000 .*\n$/);
      const json = await run(silent, '--json');
      assert.equal(json.status, 0, json.stdout);
      assert.equal((await run(silent, '--detach')).status, 0);
    }
  });

  it('in the foreground with --json are waited for', async () => {
    const child = world.spawn('start', '--kernel', KERNEL, '--memory', '64M', '--name', 'f', '--json');
    const ran = ending(child);
    await hearing(child, 'stdout', /\n/);
    await world.run(['console', 'f'], 'halt\n');
    const { status, stdout } = await ran;
    assert.equal(status, 0);
    assert.equal(JSON.parse(stdout).name, 'f');
  });

  it('end with the starter that dies before they run', async () => {
    const child = world.spawn('start', '--kernel', KERNEL, '--memory', '64M', '--name', 'x', '--detach');
    const ran = ending(child);
    while (world.machines().length === 0) await sleep(1);
    child.kill('SIGKILL');
    await ran;
    // Either it had said that it runs, or nothing is left of it.
    for (;;) {
      const rows = await world.json<{ state: string }[]>('ps');
      if (rows.length === 0 || rows[0]!.state === 'running' || rows[0]!.state === 'gone') break;
    }
  });

  it('give the terminal back as it was', async () => {
    await start('a');
    const script = `
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv('/bin/sh', ['sh', '-c', 'stty -g > before; "$0" "$1" console a; echo status $?; stty -g > after', *sys.argv[1:]])
seen, typed = b'', [(b'Ctrl-A x leaves', b'sum 1\\r'), (b'SUM ', b'\\x01x')]
while True:
    try: part = os.read(fd, 4096)
    except OSError: break
    if not part: break
    seen += part
    if typed and typed[0][0] in seen: os.write(fd, typed.pop(0)[1])
sys.stdout.buffer.write(seen)
`;
    const ran = await ending(
      spawn('python3', ['-c', script, process.execPath, MAIN], { env: world.env, cwd: world.dir }),
    );
    assert.match(ran.stdout, /a goes on/, ran.stderr);
    assert.match(ran.stdout, /status 0/);
    assert.equal(
      readFileSync(join(world.dir, 'after'), 'utf8'),
      readFileSync(join(world.dir, 'before'), 'utf8'),
    );
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'running');
  });

  it('answer over their socket, and on a loopback port to nobody else’s pages', async () => {
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
    const overTcp = await get({ host: '127.0.0.1', port });
    assert.equal(JSON.parse(overTcp.body).pid, JSON.parse(overSocket.body).pid);
    assert.equal((await get({ host: '127.0.0.1', port, headers: { host: 'evil.example' } })).status, 403);
    await world.fails(2, 'USAGE', [
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

  it('leave the machine alone that has their name since their run directory was removed', async () => {
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

  it('that cannot be are refused, and nothing of them is left', async () => {
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
    for (const [what, path] of Object.entries(images)) {
      const { message } = await world.fails(1, 'BAD_IMAGE', ['start', '--kernel', path, '--detach']);
      assert.ok(message.includes(path), `${what}: ${message}`);
      assert.ok(!message.includes('\n'));
    }
    await world.fails(2, 'USAGE', ['start', '--kernel', KERNEL, '--cpus', '10000', '--detach']);
    assert.deepEqual(world.machines(), []);
    assert.equal(existsSync(world.store), false, 'a start makes no store');
    assert.deepEqual(await world.json('ps'), []);
  });
});
