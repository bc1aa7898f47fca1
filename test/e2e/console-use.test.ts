/** Consoles as people use them: pasted text, several viewers, keys, the history of a restored machine, --json. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { ending, hearing, MAIN, type World, worldOfEachTest } from './cli.js';

describe('a console', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  const start = (name: string) => world.start(name);

  /** Types into a console on a pseudo-terminal: each text when what it waits for has been shown. */
  const onTerminal = (name: string, steps: readonly (readonly [wait: string, typed: string])[]) => {
    const script = `
import os, pty, sys, json
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], [sys.argv[1], sys.argv[2], 'console', sys.argv[3]])
seen, steps = b'', json.loads(sys.argv[4])
while True:
    try: part = os.read(fd, 4096)
    except OSError: break
    if not part: break
    seen += part
    if steps and steps[0][0].encode() in seen: os.write(fd, steps.pop(0)[1].encode())
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;
    const args = ['-c', script, process.execPath, MAIN, name, JSON.stringify(steps)];
    return ending(spawn('python3', args, { env: world.env, cwd: world.dir }));
  };

  it('passes 10 kB of pasted text on without losing a byte', async () => {
    await start('a');
    const lines = 2000;
    const ran = await world.run(
      ['console', 'a', '--until', '^OK bar', '--timeout', '100'],
      `${'cpus\n'.repeat(lines)}bar 1\n`,
    );
    assert.equal(ran.status, 0, ran.stderr);
    assert.equal(ran.stdout.match(/^CPUS \d+\r$/gm)?.length, lines);
    assert.doesNotMatch(ran.stdout, /ERR/);
  });

  it('can have several viewers, who all see everything and may all type', async () => {
    await start('a');
    const viewers = [1, 2, 3].map(() => world.spawn('console', 'a', '--until', '^OK halt'));
    const ends = viewers.map(ending);
    await Promise.all(viewers.map((viewer) => hearing(viewer, 'stdout', /TICK/)));
    const heard = viewers.map((viewer) => hearing(viewer, 'stdout', /CPUS \d+.*SUM [0-9a-f]{16}|SUM.*CPUS/s));
    viewers[0]!.stdin!.write('cpus\n');
    viewers[1]!.stdin!.write('sum 1\n');
    await Promise.all(heard);
    viewers[2]!.stdin!.write('halt\n');
    for (const { status } of await Promise.all(ends)) assert.equal(status, 0);
  });

  it('saves at Ctrl-A s and prints the result, helps at Ctrl-A ?, and detaches at Ctrl-A d', async () => {
    await start('a');
    const ran = await onTerminal('a', [
      ['Ctrl-A ? shows all keys', '\x01?'],
      ['Ctrl-A Ctrl-A  send one Ctrl-A', '\x01s'],
      ['Saved 64 MiB in', 'sum 1\r'],
      ['SUM ', '\x01d'],
    ]);
    assert.equal(ran.status, 0, ran.stdout + ran.stderr);
    const [snapshot] = await world.json<{ id: string }[]>('ls');
    assert.ok(ran.stdout.includes(snapshot!.id));
    assert.match(ran.stdout, /Detached; a is still running/);
  });

  it('does not cancel a save that it began by detaching', async () => {
    await start('a');
    const ran = await onTerminal('a', [['Ctrl-A ? shows all keys', '\x01s\x01d']]);
    assert.equal(ran.status, 0, ran.stdout + ran.stderr);
    assert.match(ran.stdout, /Saving a ….*Saved 64 MiB/s);
    assert.equal((await world.json<unknown[]>('ls')).length, 1);
  });

  it('shows what a restored machine wrote before it was saved, and then what it writes', async () => {
    await start('a');
    const sum = await world.ask('a', 'sum 1', /^SUM [0-9a-f]{16}$/);
    await world.json('save', 'a', '--then', 'stop', '--tag', 's');
    await world.json('restore', 's', '--detach', '--name', 'b');
    const ran = await world.run(['console', 'b', '--timeout', '5', '--history', '64K'], 'halt\n');
    assert.equal(ran.status, 0, ran.stderr);
    const ticks = [...ran.stdout.matchAll(/^TICK (\d+) /gm)].map(([, tick]) => Number(tick));
    assert.deepEqual(
      ticks,
      ticks.map((_, i) => i + 1),
      'no tick is missing or twice',
    );
    assert.ok(ran.stdout.startsWith('PROBE READY'));
    assert.ok(ran.stdout.includes(sum));
    assert.match(ran.stdout, /OK halt\r\n$/);
  });

  it('shows as much history as asked for', async () => {
    await start('a');
    await world.ask('a', 'cpus', /^CPUS/);
    await world.json('pause', 'a');
    const none = await world.run(['console', 'a', '--history', '0', '--timeout', '0.2']);
    assert.equal(none.stdout, '');
    const some = await world.run(['console', 'a', '--history', '20', '--timeout', '0.2']);
    assert.equal(some.stdout.length, 20);
    await world.fails(2, 'USAGE', ['console', 'a', '--history', '20', '--until', 'x'], true);
  });

  it('prints one JSON value on stdout with --json, and the output of the guest on stderr', async () => {
    await start('a');
    const matched = await world.run(['console', 'a', '--until', '^SUM', '--json'], 'sum 1\n');
    const { line, ...rest } = JSON.parse(matched.stdout);
    assert.deepEqual(rest, { name: 'a', outcome: 'matched', end: null });
    assert.match(line, /^SUM [0-9a-f]{16}$/);
    assert.match(matched.stderr, /^SUM [0-9a-f]{16}\r$/m);
    const ended = await world.run(['console', 'a', '--json'], 'halt\n');
    assert.deepEqual(JSON.parse(ended.stdout), { name: 'a', outcome: 'ended', line: null, end: 'halted' });
  });
});
