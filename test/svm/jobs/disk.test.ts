/** The stock kernel with its root on a virtio block device. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { World } from '../../e2e/cli.js';
import { awaitShell, stockGuest } from './svm.js';

const SUM = /^sum [0-9a-f]{64}$/;

describe('a stock kernel with its root on a disk, on SVM', () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') await tellMachines();
    await world.end();
  });

  /** What livesnap knows of the machines of a failed test: their states and their logs. */
  async function tellMachines(): Promise<void> {
    const { stdout } = await world.run(['ps', '--json']);
    process.stderr.write(`machines: ${stdout}\n`);
    const root = join(world.runDir, 'livesnap');
    for (const name of readdirSync(root))
      process.stderr.write(`log of ${name}: ${readFileSync(join(root, name, 'log'), 'utf8')}\n`);
  }

  /** Writes 4 MiB that nobody can guess, and returns their sum. */
  const write = (machine: string, path: string): Promise<string> =>
    world.ask(
      machine,
      `dd if=/dev/urandom of=${path} bs=1M count=4 2>/dev/null; sync; set -- $(sha256sum ${path}); echo sum $1`,
      SUM,
    );
  /** The sum of a file as it is on the disk. */
  const read = (machine: string, path: string): Promise<string> =>
    world.ask(machine, `echo 3 >/proc/sys/vm/drop_caches; set -- $(sha256sum ${path}); echo sum $1`, SUM);
  /** The guest sees the features of x86-64-v2, and no others that programs use. */
  async function checkTemplate(machine: string): Promise<void> {
    const line = await world.ask(machine, 'echo got: $(grep -m1 ^flags /proc/cpuinfo)', /^got: flags/);
    const flags = line.split(' ');
    assert.deepEqual(
      ['sse4_2', 'popcnt', 'avx', 'avx2', 'aes', 'rdrand', 'sha_ni'].filter((flag) => flags.includes(flag)),
      ['sse4_2', 'popcnt'],
      line,
    );
  }
  function run(program: string, ...args: readonly string[]): string {
    const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
    assert.equal(status, 0, `${program} ${args.join(' ')}: ${error?.message}${stdout}${stderr}`);
    return stdout;
  }

  it('keeps its files over a save, a stop and a restore, and leaves a clean file system', async () => {
    const image = join(world.dir, 'disk.img');
    copyFileSync(stockGuest('disk.img'), image);
    const share = join(world.dir, 'share');
    mkdirSync(join(share, 'a directory'), { recursive: true });
    const text = 'what the host shares\n'.repeat(1000);
    writeFileSync(join(share, 'a directory/a file'), text);
    const shared = `sum ${createHash('sha256').update(text).digest('hex')}`;
    await world.json(
      ...[
        'start',
        '--kernel',
        stockGuest('vmlinuz'),
        '--initrd',
        stockGuest('disk-initrd'),
        '--memory',
        '256M',
      ],
      ...[
        '--cmdline',
        'console=ttyS0 panic=-1 quiet',
        '--block',
        `path=${image}`,
        '--share',
        share,
        '--cpu-template',
        'x86-64-v2',
        '--detach',
        '--name',
        'before',
      ],
    );
    await awaitShell(world, 'before');
    await checkTemplate('before');
    const first = await write('before', '/root/first');
    await world.ask(
      'before',
      'for m in $(cat /modules/list); do insmod /modules/$m.ko; done; mount -o ro -t iso9660 /dev/vdb /tmp && echo mounted: $?',
      /^mounted: 0$/,
    );
    assert.equal(await read('before', '/tmp/a*/a*'), shared);
    // What is only in the guest's memory when it is saved.
    const nonce = await world.ask(
      'before',
      'read nonce </proc/sys/kernel/random/uuid; echo $nonce >/root/nonce; echo nonce $nonce',
      /^nonce [0-9a-f-]{36}$/,
    );
    const saved = await world.json<{ id: string }>('save', 'before', '--then', 'stop');

    // The snapshot has the disks: the file and the directory are not needed any more.
    rmSync(image);
    rmSync(share, { recursive: true });
    await world.json('restore', saved.id, '--detach', '--name', 'after');
    assert.equal(await world.ask('after', 'echo nonce $nonce', /^nonce [0-9a-f-]{36}$/), nonce);
    assert.equal(await read('after', '/root/first'), first);
    assert.equal(await read('after', '/tmp/a*/a*'), shared);
    await checkTemplate('after');
    const second = await write('after', '/root/second');
    assert.equal(await read('after', '/root/second'), second);
    await world.ask('after', 'mount -o remount,ro / && echo remounted: $?', /^remounted: 0$/);
    await world.json('stop', 'after');

    const extracted = join(world.dir, 'extracted.img');
    await world.json('disk', 'after-disk', extracted);
    run('e2fsck', '-f', '-n', extracted);
    for (const [name, sum] of Object.entries({ first, second })) {
      const file = join(world.dir, name);
      run('debugfs', '-R', `dump /root/${name} ${file}`, extracted);
      assert.equal(`sum ${createHash('sha256').update(readFileSync(file)).digest('hex')}`, sum, name);
    }
    assert.equal(`nonce ${run('debugfs', '-R', 'cat /root/nonce', extracted).trim()}`, nonce);
  });
});
