/** `livesnap demo`: shows what livesnap does, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requireKvm } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { MAIN, type World, worldOfEachTest } from './cli.js';
import { gone } from './processes.js';

describe('livesnap demo', function () {
  this.timeout(limit(120_000));
  let world: World;
  let temporary = '';
  worldOfEachTest((made) => {
    world = made;
    temporary = join(world.dir, 'tmp');
    mkdirSync(temporary);
  });
  before(function () {
    requireKvm(this);
  });

  const demo = (
    ...args: string[]
  ): { child: ChildProcess; ended: Promise<[number | null, string, string]> } => {
    const env = { ...world.env, TMPDIR: temporary };
    const child = spawn(process.execPath, [MAIN, 'demo', ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [out, err]: [string[], string[]] = [[], []];
    child.stdout!.on('data', (part) => out.push(part));
    child.stderr!.on('data', (part) => err.push(part));
    const ended = new Promise<[number | null, string, string]>((resolve) => {
      child.once('close', (status) => resolve([status, out.join(''), err.join('')]));
    });
    return { child, ended };
  };
  /** The pid of the demo's machine of this name, as soon as there is one. */
  const pidOf = async (name: string): Promise<number> => {
    for (;;) {
      for (const dir of readdirSync(temporary))
        try {
          return JSON.parse(readFileSync(join(temporary, dir, 'run/livesnap', name, 'machine.json'), 'utf8'))
            .pid;
        } catch {
          // It is not there yet.
        }
      await sleep(10);
    }
  };
  const assertNothingIsLeft = async (pid: number): Promise<void> => {
    assert.deepEqual(readdirSync(temporary), []);
    await gone(pid); // a process that was killed needs a moment
  };

  it('boots, saves, forks, kills and restores a machine, and removes all of it', async () => {
    const { ended } = demo();
    const pid = await pidOf('clone-5');
    const [status, stdout, stderr] = await ended;
    assert.equal(status, 0, stderr);
    assert.match(stdout, /Booted a machine of 256 MiB/);
    for (const clone of [1, 2, 3, 4, 5]) assert.match(stdout, new RegExp(`^  clone-${clone} +\\d+$`, 'm'));
    assert.match(stdout, /Killed the original with SIGKILL, and restored it/);
    await assertNothingIsLeft(pid);
  });

  it('prints its figures as JSON', async () => {
    const [status, stdout, stderr] = await demo('--json').ended;
    assert.deepEqual([status, stderr], [0, '']);
    const { clones, counts, pauseMs, memoryBytes, storedBytes } = JSON.parse(stdout);
    assert.equal(clones, counts.length);
    assert.ok(pauseMs > 0 && storedBytes < memoryBytes);
  });

  it('leaves nothing when it is interrupted', async () => {
    const { child, ended } = demo();
    const pid = await pidOf('clone-1');
    child.kill('SIGINT');
    const [status, , stderr] = await ended;
    assert.notEqual(status, 0);
    assert.match(stderr, /the demo was interrupted by SIGINT/);
    await assertNothingIsLeft(pid);
  });

  it('leaves nothing when one of its machines is killed', async () => {
    const { ended } = demo();
    const pid = await pidOf('demo');
    process.kill(pid, 'SIGKILL');
    const [status, , stderr] = await ended;
    assert.notEqual(status, 0);
    // Which sentence depends on what the demo was waiting for.
    assert.match(stderr, /^livesnap: .*(machine|console)/);
    await assertNothingIsLeft(pid);
  });
});
