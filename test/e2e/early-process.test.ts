/** The process of a machine, spawned before the command line is parsed: nothing is left where no machine starts. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '../../src/native/locks.js';
import { probe, requireKvm } from '../kvm/kvm.js';
import { ending, World } from './cli.js';
import { gone, machineProcesses, processesOf } from './processes.js';

describe('the process that start and restore spawn early', function () {
  this.timeout(120_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  const assertNothing = (): void => {
    assert.deepEqual(machineProcesses(world.runDir), []);
    assert.deepEqual(world.machines(), []);
  };

  for (const [status, code, args] of [
    [2, 'USAGE', ['start']],
    [2, 'USAGE', ['start', '--no-such-option']],
    [3, 'NO_SUCH_FILE', ['start', '--kernel', '/nowhere']],
    [2, 'USAGE', ['restore']],
    [3, 'NO_SUCH_FILE', ['restore', 'nothing']],
  ] as const)
    it(`has ended when ${args.join(' ')} fails`, async () => {
      await world.fails(status, code, args);
      assertNothing();
    });

  it('has ended when its name is taken, and the other machine runs', async function () {
    requireKvm(this);
    await world.start('a');
    const processes = machineProcesses(world.runDir);
    const start = ['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--name', 'a', '--detach'];
    await world.fails(2, 'NAME_IN_USE', start);
    assert.deepEqual(machineProcesses(world.runDir), processes);
    assert.deepEqual(processesOf('a', world.runDir), processes);
  });

  it('is not spawned for help', async () => {
    const preload = join(world.dir, 'tell.mjs');
    writeFileSync(preload, 'console.error(process.argv[1]);');
    world.env.NODE_OPTIONS = `--import=${preload}`;
    for (const args of [
      ['start', '--help'],
      ['help', 'restore'],
    ]) {
      const { status, stderr } = await world.run(args);
      assert.equal(status, 0);
      assert.match(stderr, /^\S+livesnap\.js\n$/);
      assertNothing();
    }
  });

  for (const signal of ['SIGKILL', 'SIGINT'] as const)
    it(`ends when the command is ended by ${signal} before it knows the machine`, async () => {
      await world.json('put', '/etc/hostname', '--tag', 'one');
      const lock = openSync(join(world.store, 'lock'), 'r');
      while (!tryLock(lock, 'exclusive')) await sleep(5);
      try {
        const command = world.spawn('restore', 'one');
        let pid: number | undefined;
        while (pid === undefined) {
          await sleep(5);
          [pid] = machineProcesses(world.runDir);
        }
        command.kill(signal);
        await once(command, 'exit');
        await gone(pid);
        assertNothing();
      } finally {
        closeSync(lock);
      }
    });

  it('becomes the process of the machine', async function () {
    requireKvm(this);
    const starting = world.spawn(
      ...['start', '--kernel', probe('probe.elf'), '--memory', '32M', '--name', 'a', '--detach'],
    );
    const ended = ending(starting);
    let early: number | undefined;
    while (early === undefined) {
      await sleep(1);
      [early] = machineProcesses(world.runDir);
    }
    assert.equal((await ended).status, 0);
    assert.deepEqual(processesOf('a', world.runDir), [early]);
  });
});
