/** The end of machines by `stop`: the power button, its timeout, force, and several machines at once. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { guestThatIgnoresButton, guestWithPowerButton } from '../kvm/small-guests.js';
import { ending, hearing, type World, worldOfEachTest } from './cli.js';

describe('livesnap stop', function () {
  this.timeout(120_000);
  let world: World;
  worldOfEachTest((made) => {
    world = made;
  });

  /** Starts a guest, and waits until it has enabled its power button. */
  async function start(name: string, kernel: string): Promise<void> {
    await world.start(name, [], kernel);
    const console = world.spawn('console', name);
    const ended = ending(console);
    await hearing(console, 'stdout', /^(ready|PROBE READY)/);
    console.kill();
    await ended;
  }
  const listening = (name: string) => start(name, guestWithPowerButton(join(world.dir, `${name}.elf`)));
  const deaf = (name: string) => start(name, guestThatIgnoresButton(join(world.dir, `${name}.elf`)));
  const plain = (name: string) => start(name, probe('probe.elf'));

  it('lets a guest power off that listens for the power button', async () => {
    await listening('a');
    const ran = await world.run(['stop', 'a']);
    assert.deepEqual([ran.status, ran.stdout, ran.stderr], [0, 'Stopped a; the guest powered off\n', '']);
    assert.deepEqual(world.machines(), []);
  });

  it('lets a paused guest power off, and one that was restored', async () => {
    await listening('a');
    await world.json('save', 'a', '--then', 'pause', '--tag', 'listening');
    assert.equal((await world.json('stop', 'a')).how, 'poweredOff');
    await world.json('restore', 'listening', '--detach');
    assert.equal((await world.json('stop', 'a')).how, 'poweredOff');
  });

  it('ends a guest that does not power off in time, and with --force at once', async () => {
    await deaf('a');
    const ran = await world.run(['stop', 'a', '--timeout', '0.2']);
    assert.equal(ran.stdout, 'Stopped a: the guest did not power off within 200 ms\n');
    await listening('b');
    assert.deepEqual(await world.json('stop', 'b', '--force'), {
      ...{ name: 'b', state: 'stopped', how: 'ended', reason: 'forced', lostSaves: 0 },
    });
    await plain('c');
    const said = (await world.run(['stop', 'c'])).stdout;
    assert.equal(said, 'Stopped c at once: the guest does not listen for the power button\n');
  });

  it('stops several machines at once, and those that exist if one does not', async () => {
    await Promise.all([listening('a'), plain('b')]);
    const ran = await world.run(['stop', 'a', 'nobody', 'b', 'a', '--json']);
    assert.equal(ran.status, 3);
    const rows = JSON.parse(ran.stdout) as { name: string; how?: string; error?: { code: string } }[];
    assert.deepEqual(
      rows.map(({ name, how, error }) => [name, how ?? error?.code]),
      [
        ['a', 'poweredOff'],
        ['nobody', 'NO_SUCH_MACHINE'],
        ['b', 'ended'],
      ],
    );
    assert.deepEqual(world.machines(), []);
    const none = await world.run(['stop', 'x', 'y']);
    assert.deepEqual([none.status, none.stdout], [3, '']);
    assert.match(none.stderr, /no machine named x\n.*\n.*no machine named y\n/);
  });
});
