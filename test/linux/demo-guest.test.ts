/** The program of the demo as process 1 of Linux: it counts, fills memory, and is saved and restored. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initramfsOf } from '../../src/cli/initramfs.js';
import { projectRoot } from '../../src/native/project-root.js';
import { World } from '../e2e/cli.js';
import { GUEST, requireLinuxGuest } from './linux-guest.js';

describe("the demo's program under Linux", () => {
  let world: World;
  before(function () {
    requireLinuxGuest(this, ['bzImage']);
    world = new World();
  });
  after(() => world?.end());

  it('counts, fills memory, and counts on when it is restored', async () => {
    const initrd = join(world.dir, 'demo-initrd');
    writeFileSync(initrd, initramfsOf(readFileSync(join(projectRoot, 'guest/build/demo-init'))));
    await world.start(
      'demo',
      [
        '--initrd',
        initrd,
        '--memory',
        '128M',
        '--cmdline',
        'console=ttyS0 quiet loglevel=0 panic=-1 reboot=t',
      ],
      join(GUEST, 'bzImage'),
    );
    const tickOf = async (machine: string): Promise<[number: number, nonce: string]> => {
      const [, number, nonce] = /TICK (\d+) nonce=(\w{16})/.exec(await world.ask(machine, '', /^TICK/))!;
      return [Number(number), nonce!];
    };
    const [, nonce] = await tickOf('demo');
    assert.equal(await world.ask('demo', 'text 7 8', /^(OK|ERROR)/), 'OK text: 8 MiB used');
    assert.equal(await world.ask('demo', 'fill 9 4', /^(OK|ERROR)/), 'OK fill: 4 MiB used');
    for (const wrong of ['fill', 'text 1 0', 'fill 1 99999', 'text 1 4096', 'other'])
      assert.match(await world.ask('demo', wrong, /^(OK|ERROR)/), /^ERROR/);
    const [before] = await tickOf('demo');
    await world.json('save', 'demo', '--tag', 'counting', '--then', 'stop');
    await world.json('restore', 'counting', '--detach', '--name', 'again');
    const [after, sameNonce] = await tickOf('again');
    assert.equal(sameNonce, nonce);
    assert.ok(after > before);
  });
});
