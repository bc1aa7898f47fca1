/** Consoles of machines, on pipes and on terminals. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PROMPT_IDLE_MS } from '../../src/vmm/console/line-watch.js';
import { guestThatEchoes } from '../kvm/small-guests.js';
import { ending, MAIN, type World, worldOfEachTest } from './cli.js';

describe('livesnap console', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const start = (name: string) => world.start(name);

  it('shows only output after attaching with --until', async () => {
    await start('a');
    const first = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    await world.ask('a', 'fill 1 1', /^OK/);
    const second = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    assert.notEqual(first, second, 'the second answer is not the first one');
    const late = await world.run(['console', 'a', '--until', '^NEVER', '--timeout', '0.3']);
    assert.equal(late.status, 1);
    assert.match(late.stderr, /^livesnap: timed out waiting for \/\^NEVER\/ on a's console\n/);
    const ended = world.run(['console', 'a', '--until', '^NEVER', '--json']);
    await sleep(100);
    await world.json('stop', 'a');
    const { status, stdout } = await ended;
    assert.equal(status, 1);
    assert.match(stdout, /"code":"MACHINE_GONE"/);
  });

  it('ends at a prompt that stands there already, unless input is sent', async () => {
    await world.start('a', [], guestThatEchoes(join(world.dir, 'echo.elf')));
    const prompt = ['console', 'a', '--until', '^\\$ $', '--timeout', '60'];
    const first = await world.run(prompt);
    assert.deepEqual([first.status, first.stdout], [0, '$ '], 'nothing is typed');
    const again = await world.run([...prompt, '--json']);
    assert.deepEqual(JSON.parse(again.stdout).line, '$ ');

    // The prompt before the input is not the answer to it.
    const typed = await world.run(prompt, 'word\r');
    assert.deepEqual([typed.status, typed.stdout], [0, 'word\n$ ']);

    // A pipe that is open may bring input late.
    const child = world.spawn(...prompt);
    const ended = ending(child);
    await sleep(2 * PROMPT_IDLE_MS);
    child.stdin!.write('late\r');
    assert.equal((await ended).stdout, 'late\n$ ');

    const script = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
seen = b''
while True:
    try: part = os.read(fd, 4096)
    except OSError: break
    if not part: break
    seen += part
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
    const terminal = spawn('python3', ['-c', script, process.execPath, MAIN, ...prompt], { env: world.env });
    const shown = await ending(terminal);
    assert.equal(shown.status, 0, shown.stdout);
    assert.match(shown.stdout, /^Attached to a.*\r\n\$ $/);
  });

  it('fails if the process of the machine does not answer, as pause, resume and save do', async () => {
    await start('a');
    const { pid } = (await world.json<{ pid: number }[]>('ps'))[0]!;
    process.kill(pid, 'SIGSTOP');
    try {
      for (const args of [
        ['console', 'a', '--timeout', '1'],
        ['pause', 'a'],
        ['resume', 'a'],
        ['save', 'a'],
      ]) {
        const { message } = await world.fails(1, 'NOT_POSSIBLE_NOW', args);
        assert.equal(message, 'the machine a does not answer');
      }
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await world.json('stop', 'a');
  });

  it('detaches even if the guest does not read its input', async () => {
    await start('a');
    // More than the buffers of the machine and of the sockets hold.
    const input = 'x'.repeat(8 << 20);
    await world.json('pause', 'a');
    const ran = await world.run(['console', 'a', '--until', '^NEVER', '--timeout', '1'], input);
    assert.equal(ran.status, 1);
    assert.match(
      ran.stderr,
      /Input that the guest did not read in time was discarded\.\nlivesnap: timed out/,
    );
    const script = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execv('/bin/sh', ['sh', '-c', 'stty raw; "$0" "$1" console a; echo status $?', *sys.argv[1:]])
seen = b''
while b'Ctrl-A x detaches' not in seen: seen += os.read(fd, 4096)
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

  it('restores the mode of the terminal', async () => {
    await start('a');
    const script = `
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execv('/bin/sh', ['sh', '-c', 'stty -g > before; "$0" "$1" console a; echo status $?; stty -g > after', *sys.argv[1:]])
seen, typed = b'', [(b'Ctrl-A x detaches', b'sum 1\\r'), (b'SUM ', b'\\x01x')]
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
    assert.match(ran.stdout, /Detached; a is still running\. Reattach: livesnap console a\r\n/, ran.stderr);
    assert.match(ran.stdout, /status 0/);
    assert.equal(
      readFileSync(join(world.dir, 'after'), 'utf8'),
      readFileSync(join(world.dir, 'before'), 'utf8'),
    );
    assert.equal((await world.json<{ state: string }[]>('ps'))[0]!.state, 'running');
  });
});
