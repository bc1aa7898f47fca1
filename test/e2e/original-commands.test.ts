/** The command lines of the program that livesnap replaces, from an empty directory, as docs/cli.md describes them. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { snapshotNamed } from '../../src/host/two-file-snapshot.js';
import { probe } from '../kvm/kvm.js';
import { ending, hearing, MAIN, type Ran, type World, worldOfEachTest } from './cli.js';
import { freePort } from './free-port.js';

/** Nothing else writes `nonce=`, which is drawn when the guest boots and stays in its memory. */
const TICK = /TICK (\d+) nonce=([0-9a-f]{16})\r?\n/;

describe('the command lines of the original program', function () {
  this.timeout(120_000);
  let world: World;
  let dir: string;
  worldOfEachTest((made) => {
    world = made;
  });
  beforeEach(() => {
    dir = join(world.dir, 'empty');
    mkdirSync(dir);
    copyFileSync(probe('probe.bzImage'), join(dir, 'bzImage'));
  });

  /** Runs a command line in the directory. */
  const run = (...args: string[]): ChildProcess =>
    spawn(process.execPath, [MAIN, ...args], { cwd: dir, env: world.env, stdio: ['pipe', 'pipe', 'pipe'] });

  const request = async (port: number, path: string, body?: unknown): Promise<Record<string, unknown>> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
      headers: { authorization: `Bearer ${world.token()}` },
      ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    });
    assert.equal(answer.status, 200, path);
    return (await answer.json()) as Record<string, unknown>;
  };

  /** Runs a command line until the guest ticks; then `use` it and end it. */
  async function whileItTicks(
    args: readonly string[],
    use: (tick: { count: number; nonce: string }) => Promise<void>,
  ): Promise<Ran> {
    const child = run(...args);
    const ended = ending(child);
    const [, count, nonce] = TICK.exec(await hearing(child, 'stdout', TICK))!;
    await use({ count: Number(count), nonce: nonce! });
    child.kill('SIGTERM');
    const ran = await ended;
    assert.equal(ran.status, 0, ran.stderr);
    return ran;
  }

  it('start a machine with an API on a port, and restore what was saved there', async () => {
    const port = await freePort();
    const api = ['--port', String(port)];
    const cmdline = 'console=ttyS0 a=1,b';
    let nonce = '';
    const started = await whileItTicks(
      [
        ...['--kernel', `path=bzImage,cmdline=${cmdline},kernel_load_addr=0x1000000`],
        ...['--memory', 'size_mib=64', '--vcpu', 'num=2', ...api],
      ],
      async (tick) => {
        nonce = tick.nonce;
        const { memoryBytes, cpus } = await request(port, '/machine');
        assert.deepEqual([memoryBytes, cpus], [64 * 2 ** 20, 2]);
        await request(port, '/save', { tags: ['saved'] });
      },
    );
    assert.match(started.stderr, /^note: kernel_load_addr has no effect/m);
    const { machine } = await world.json<{ machine: { cmdline: string } }>('show', 'saved');
    assert.ok(JSON.stringify(machine).includes(cmdline), 'the command line may have commas');

    const saved = ['--cpu_path', 'saved', '--memory_path', 'saved'];
    for (const [args, hasNote] of [
      [saved, false],
      [[...api, ...saved], false],
      [['--kernel', 'path=bzImage', ...api, ...saved], true],
      [['--kernel', 'path=gone,cmdline=x', ...saved, ...api], true],
    ] as const) {
      const restored = await whileItTicks(args, async (tick) => {
        assert.equal(tick.nonce, nonce, 'it is the saved machine');
        if (args.includes('--port')) assert.equal((await request(port, '/machine')).cpus, 2);
      });
      const note =
        /^note: --kernel has no effect on a restore: the kernel is in the memory of the snapshot$/m;
      assert.equal(note.test(restored.stderr), hasNote, restored.stderr);
    }
    assert.deepEqual(world.machines(), []);
  });

  it('take options of the verb, also short ones', async () => {
    const started = await world.run([
      ...['--kernel', `path=${join(dir, 'bzImage')}`, '--memory', 'size_mib=64', '-dq', '--name', 'a'],
    ]);
    assert.deepEqual(started, { status: 0, stdout: 'a\n', stderr: '' });
    const killed = await world.json('kill', 'a');
    assert.deepEqual([killed.how, killed.reason], ['ended', 'forced']);
  });

  it('start a machine with the default memory and one vCPU', async () => {
    const port = await freePort();
    await whileItTicks(['--kernel', 'path=bzImage', '--port', String(port)], async () => {
      const { memoryBytes, cpus } = await request(port, '/machine');
      assert.deepEqual([memoryBytes, cpus], [256 * 2 ** 20, 1]);
    });
  });

  it('restore the snapshot that stands for two files, and say how to make it if there is none', async () => {
    const two = ['--cpu_path', './cpu.snap', '--memory_path', 'memory.snap'];
    await world.json('start', '--kernel', join(dir, 'bzImage'), '--memory', '64M', '-d', '--name', 'a');
    await world.json('save', 'a', '--tag', 'other');
    const error = await world.fails(3, 'NO_SUCH_SNAPSHOT', two);
    assert.equal(error.message, 'nothing was saved as ./cpu.snap and memory.snap');
    const [, tag] = /livesnap save MACHINE --tag (\S+)$/.exec(error.hint)!;
    assert.equal(tag, snapshotNamed('./cpu.snap', 'memory.snap'), 'the tag of the API of the original');
    await world.json('save', 'a', '--tag', tag!, '--then', 'stop');
    const [{ id }] = await world.json<[{ id: string }]>('ls', '--filter', `tag=${tag}`);
    await world.json(...two, '-d', '--name', 'b');
    assert.equal((await world.json<{ snapshot: string }[]>('ps'))[0]!.snapshot, id);

    // One word for both is a tag, as without the options: its error is the usual one.
    const one = await world.fails(3, 'NO_SUCH_SNAPSHOT', ['--cpu_path', 'x', '--memory_path', 'x']);
    assert.match(one.message, /^no snapshot "x"/);
  });
});
