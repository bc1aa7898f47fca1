/** `livesnap logs`: the output of guests, and the logs of their processes. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { probe } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { gone } from './processes.js';

describe('livesnap logs', function () {
  this.timeout(limit(120_000));
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });
  const start = (name: string): Promise<{ pid: number }> =>
    world.json('start', '--kernel', probe('probe.bzImage'), '--memory', '32M', '--name', name, '--detach');
  const logs = async (...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await world.run(['logs', ...args]);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  const ticked = async (name: string): Promise<void> => {
    await world.run(['console', name, '--until', '^TICK']);
  };

  it('prints what a machine, and a snapshot of it, have written', async () => {
    await start('web');
    await ticked('web');
    const all = await logs('web');
    assert.match(all, /^PROBE READY nonce=\w{16} cpus=1\r\nTICK 1 /);
    assert.match(await logs('web', '--tail', '1'), /^TICK \d+ nonce=\w{16}\r\n$/);
    assert.equal(await logs('web', '--tail', '0'), '');
    await world.json('save', 'web', '--tag', 'base', '--then', 'stop');
    assert.ok((await logs('base')).startsWith(all));
    const { type, output } = await world.json<{ type: string; output: string }>(
      'logs',
      'base',
      '--tail',
      '1',
    );
    assert.equal(type, 'snapshot');
    assert.match(output, /^TICK/);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['logs', 'web']);
  });

  it('follows a machine until it ends', async () => {
    await start('web');
    const following = world.run(['logs', 'web', '-fn0']);
    await sleep(500);
    await world.json('stop', 'web', '--force');
    const { status, stdout } = await following;
    assert.equal(status, 0);
    assert.match(stdout, /^TICK \d+ nonce/m);
    assert.doesNotMatch(stdout, /READY/);
  });

  it("prints the log of a machine's process, also of one that was killed", async () => {
    const { pid } = await start('web');
    assert.match(await logs('--vmm', 'web'), /Z running, 1 vCPUs/);
    process.kill(pid, 'SIGKILL');
    await gone(pid);
    assert.match(await logs('--vmm', 'web', '--tail', '1'), /^\S+Z /);
    const { message } = await world.fails(1, 'MACHINE_GONE', ['logs', 'web']);
    assert.equal(message, 'the console output of the machine web is lost');
  });

  it('asks which one is meant, and refuses what has no output', async () => {
    await start('web');
    await world.json('save', 'web', '--tag', 'web');
    await world.fails(2, 'AMBIGUOUS', ['logs', 'web']);
    assert.match(await logs('web', '--type', 'snapshot', '--tail', '1'), /TICK|READY/);
    for (const more of [
      ['--type', 'snapshot', '-f'],
      ['--vmm', '-f'],
      ['--follow', '--json'],
    ])
      assert.equal((await world.run(['logs', 'web', ...more])).status, 2, more.join(' '));
    await world.json('put', probe('probe.bzImage'), '--tag', 'file');
    assert.match(
      (await world.fails(2, 'USAGE', ['logs', 'file'])).message,
      /is a file, which has no console/,
    );
    await world.fails(3, 'NO_SUCH_MACHINE', ['logs', 'absent', '--vmm']);
  });
});
