/** A distribution's kernel, as it is: Debian's cloud kernel. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { initramfsOf } from '../../../src/cli/initramfs.js';
import { projectRoot } from '../../../src/native/project-root.js';
import { pvmCmdline } from '../../../src/vmm/kvm/pvm.js';
import { World } from '../../e2e/cli.js';
import { limit } from '../../timeouts.js';
import { awaitShell, hear, stockGuest } from './svm.js';

const CMDLINE = 'console=ttyS0 panic=-1 quiet';

/** Makes the initramfs of the demo in the directory of `world`. */
function demoInitrd(world: World): string {
  const file = join(world.dir, 'demo-initrd');
  writeFileSync(file, initramfsOf(readFileSync(join(projectRoot, 'guest/build/demo-init'))));
  return file;
}

describe('a stock kernel on SVM', () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('runs the program of the demo', async () => {
    await world.start(
      'demo',
      ['--initrd', demoInitrd(world), '--memory', '256M', '--cmdline', `${CMDLINE} loglevel=0 reboot=t`],
      stockGuest('vmlinuz'),
    );
    assert.match(await hear(world, 'demo', /^TICK/), /^TICK \d+ nonce=\w{16}/);
    assert.equal(await world.ask('demo', 'text 7 16', /^(OK|ERROR)/), 'OK text: 16 MiB used');
  });

  it('boots to a shell without options for PVM, continues in a new process, and powers off on stop', async () => {
    const started = await world.run([
      ...['start', '--kernel', stockGuest('vmlinuz'), '--initrd', stockGuest('initrd'), '--memory', '256M'],
      ...['--cpus', '2', '--cmdline', CMDLINE, '--detach', '--name', 'before'],
    ]);
    assert.equal(started.status, 0, started.stderr);
    assert.doesNotMatch(started.stdout + started.stderr, /pvm/i);

    await awaitShell(world, 'before');
    // The answer is not in the line itself, which the terminal echoes.
    await world.ask(
      'before',
      'read nonce </proc/sys/kernel/random/uuid; echo shell-$((40 + 2))',
      /^shell-42/,
    );
    const seen = (await world.ask('before', 'echo seen: $(cat /proc/cmdline)', /^seen: /)).slice(
      'seen: '.length,
    );
    const options = seen.split(' ');
    for (const option of CMDLINE.split(' ')) assert.ok(options.includes(option), seen);
    const forPvm = pvmCmdline('')
      .split(' ')
      .filter((option) => option !== '');
    assert.ok(forPvm.includes('rodata=off'));
    assert.deepEqual(
      options.filter((option) => forPvm.includes(option)),
      [],
      seen,
    );
    assert.equal(await world.ask('before', 'echo cpus: $(nproc)', /^cpus: \d/), 'cpus: 2');

    // What acpid or systemd-logind does on a distribution: it reads the button's event and asks process 1.
    await world.ask(
      'before',
      'for m in $(cat /modules/list); do insmod /modules/$m.ko; done; ' +
        'b=/dev/input/$(grep -l "Power Button" /sys/class/input/event*/device/name | cut -d/ -f5); ' +
        '(dd if=$b of=/dev/null bs=24 count=1 2>/dev/null && poweroff) & ' +
        'test -c $b && echo button-$((40 + 2))',
      /^button-42/,
    );

    const loop = 'i=0; while [ $i -lt 10000 ]; do i=$((i + 1)); echo "loop $i $nonce"; sleep 1; done &';
    const LOOP = /^loop \d+ [0-9a-f-]{36}/;
    const parse = (line: string) => {
      const [, count, nonce] = line.split(' ');
      return { count: Number(count), nonce };
    };
    const before = parse(await world.ask('before', loop, LOOP));
    const saved = await world.json<{ id: string }>('save', 'before', '--then', 'stop');
    await world.json('restore', saved.id, '--detach', '--name', 'after');
    const after = parse(await hear(world, 'after', LOOP));
    assert.equal(after.nonce, before.nonce);
    assert.ok(after.count > before.count, `${after.count} follows ${before.count}`);
    // The shell itself, its variables and its second processor.
    assert.equal(
      await world.ask('after', 'echo still $nonce', /^still [0-9a-f-]{36}/),
      `still ${before.nonce}`,
    );
    assert.equal(await world.ask('after', 'echo cpus: $(nproc)', /^cpus: \d/), 'cpus: 2');

    // The button was enabled, and its reader was waiting, when the machine was saved.
    const stopped = await world.json<{ how: string; reason: string | null }>(
      ...['stop', 'after', '--timeout', String(limit(60))],
    );
    assert.deepEqual([stopped.how, stopped.reason], ['poweredOff', null]);
    assert.deepEqual(await world.json('ps'), []);
  });
});
