/** Run directories on a full file system: nothing starts, and running machines keep working. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, World } from './cli.js';
import { processesOf } from './processes.js';

const startOf = (name: string, ...more: string[]): string[] => [
  ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--name', name],
  ...more,
];

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
    // Only SIGKILL ends a process that spins.
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

  it('makes start and restore fail with an error that names it', async () => {
    await world.json(...startOf('a', '--detach'));
    await world.json('save', 'a', '--tag', 't', '--then', 'stop');
    fill();
    const path = join(world.runDir, 'livesnap');
    for (const args of [startOf('b', '--detach'), ['restore', 't', '--name', 'b', '--detach']]) {
      const child = world.spawn(...args, '--json');
      const timer = setTimeout(() => child.kill('SIGKILL'), 30_000); // A command that hangs fails the test.
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

  it('leaves a running machine able to run, be saved and be stopped', async () => {
    await world.json(...startOf('a', '--detach'));
    fill();
    const saved = await world.json<{ id: string }>('save', 'a');
    const [row] = await world.json<Record<string, unknown>[]>('ps');
    assert.deepEqual([row!.state, row!.snapshot], ['running', saved.id]);
    await world.ask('a', 'cpus', /^CPUS \d+$/);
    // Dropped log entries are counted once there is room.
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
