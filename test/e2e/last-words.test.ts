/** The logs and notes of machines: a disk without room for them is no failure, and a process that dies says why. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, hearing, World } from './cli.js';

const startOf = (name: string, ...more: string[]): string[] => [
  ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--name', name],
  ...more,
];

/** Processes of this name of a machine. */
const processesOf = (name: string, runDir: string): number[] =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .map(Number)
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
        const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
        return (
          words[1]?.endsWith('machine-process.js') &&
          words[2] === name &&
          environment.includes(`XDG_RUNTIME_DIR=${runDir}`)
        );
      } catch {
        return false;
      }
    });

describe('a run directory on a full file system', function () {
  this.timeout(120_000);
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(function () {
    world = new World();
    const mounted = spawnSync('mount', [
      ...['-t', 'tmpfs', '-o', 'size=64k,mode=700', 'livesnap-test', world.runDir],
    ]);
    if (mounted.status !== 0) {
      process.stderr.write(
        `    SKIPPED, not tested: ${world.runDir} cannot be mounted here (root is needed)\n`,
      );
      this.skip();
    }
  });
  afterEach(async () => {
    // A process that spins obeys nothing else.
    for (const name of world.machines())
      for (const pid of processesOf(name, world.runDir)) process.kill(pid, 'SIGKILL');
    execFileSync('umount', ['-l', world.runDir]);
    await world.end();
  });

  const fill = (): void => {
    try {
      for (let i = 0; ; i++) writeFileSync(join(world.runDir, `fill-${i}`), Buffer.alloc(4096));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
    }
    assert.equal(statfsSync(world.runDir).bavail, 0);
  };

  it('refuses start and restore in one sentence that names it', async () => {
    await world.json(...startOf('a', '--detach'));
    await world.json('save', 'a', '--tag', 't', '--then', 'stop');
    fill();
    const path = join(world.runDir, 'livesnap');
    for (const args of [startOf('b', '--detach'), ['restore', 't', '--name', 'b', '--detach']]) {
      const child = world.spawn(...args, '--json');
      const timer = setTimeout(() => child.kill('SIGKILL'), 30_000); // one that hangs fails the test
      const { status, stdout } = await ending(child);
      clearTimeout(timer);
      assert.equal(status, 1, `${args[0]}: ${stdout}`);
      const { code, message, hint } = JSON.parse(stdout).error;
      assert.equal(code, 'NO_SPACE');
      assert.equal(message, `the file system of the run directory ${path}/b is full`);
      assert.match(hint, /XDG_RUNTIME_DIR/);
      assert.deepEqual(world.machines(), []);
      assert.deepEqual(processesOf('b', world.runDir), []);
    }
  });

  it('lets a machine that runs go on, be saved and be stopped', async () => {
    await world.json(...startOf('a', '--detach'));
    fill();
    const saved = await world.json<{ id: string }>('save', 'a');
    const [row] = await world.json<Record<string, unknown>[]>('ps');
    assert.deepEqual([row!.state, row!.snapshot], ['running', saved.id]);
    await world.ask('a', 'cpus', /^CPUS \d+$/);
    // What did not fit is counted as soon as there is room.
    for (const name of readdirSync(world.runDir))
      if (name.startsWith('fill-')) rmSync(join(world.runDir, name));
    await world.json('save', 'a');
    const log = readFileSync(join(world.runDir, 'livesnap/a/log'), 'utf8');
    assert.match(log, /running, 1 vCPUs/);
    fill();
    await world.json('save', 'a', '--then', 'stop');
    assert.equal((await world.json<unknown[]>('ls')).length, 3);
    assert.deepEqual(world.machines(), []);
  });
});

describe('the process of a machine that dies', function () {
  this.timeout(120_000);
  let world: World;
  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
    // A mistake in the process of the machine that is called b…: it comes when SIGUSR2 does.
    const preload = join(world.dir, 'mistake.mjs');
    writeFileSync(
      preload,
      `import { isMainThread } from 'node:worker_threads';
       if (isMainThread && process.argv[1]?.endsWith('machine-process.js'))
         process.on('SIGUSR2', () => { throw new TypeError('a mistake in the process'); });`,
    );
    world.env.NODE_OPTIONS = `--import=${preload}`;
  });
  afterEach(() => world.end());

  it('says why in its log, and the commands repeat it', async () => {
    const { pid } = await world.json<{ pid: number }>(...startOf('a', '--detach'));
    process.kill(pid, 'SIGUSR2');
    while (processesOf('a', world.runDir).length > 0) await sleep(10);
    const log = readFileSync(join(world.runDir, 'livesnap/a/log'), 'utf8');
    assert.match(log, /TypeError: a mistake in the process\n +at .*mistake\.mjs/);
    assert.match(log, /the process ends: internal error: a mistake in the process\n$/);
    const error = await world.fails(1, 'MACHINE_GONE', ['save', 'a']);
    assert.equal(error.message, 'the machine a failed: internal error: a mistake in the process');
    const [row] = await world.json<Record<string, unknown>[]>('ps');
    assert.equal(row!.state, 'failed');
    await world.json('stop', 'a');
  });

  it('ends the command that waits for it with the reason', async () => {
    const starting = world.spawn(...startOf('a'));
    const ended = ending(starting);
    await hearing(starting, 'stdout', /TICK/);
    process.kill(processesOf('a', world.runDir)[0]!, 'SIGUSR2');
    const { status, stderr } = await ended;
    assert.equal(status, 1);
    assert.match(stderr, /livesnap: the machine a failed: internal error: a mistake in the process\n/);
  });

  it('does so while it still starts', async () => {
    writeFileSync(
      join(world.dir, 'mistake.mjs'),
      `import { isMainThread } from 'node:worker_threads';
       if (isMainThread && process.argv[1]?.endsWith('machine-process.js'))
         throw new TypeError('an early mistake');`,
    );
    const error = await world.fails(1, 'MACHINE_FAILED', startOf('a', '--detach'));
    assert.match(error.hint, /^Its log ends with: TypeError: an early mistake$/);
    assert.deepEqual(world.machines(), []);
  });
});
