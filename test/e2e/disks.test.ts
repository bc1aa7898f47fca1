/** Disks on the command line: what is refused, that nothing is left behind, and that work is not lost in silence. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildDiskGuest } from '../kvm/disk-guest.js';
import { requireKvm } from '../kvm/kvm.js';
import { World } from './cli.js';

const BLOCKS = 64;

describe('disks on the command line', function () {
  this.timeout(120_000);
  let world: World;
  let kernel: string;
  let image: string;

  before(function () {
    requireKvm(this);
  });
  beforeEach(() => {
    world = new World();
    kernel = buildDiskGuest(join(world.dir, 'kernel'));
    image = join(world.dir, 'disk.img');
    writeFileSync(image, Buffer.alloc(BLOCKS * 4096, 'i'));
  });
  afterEach(() => world.end());

  const startArgs = (name: string, ...blocks: string[]): string[] => [
    ...['start', '--kernel', kernel, '--memory', '16M', '--detach', '--name', name],
    ...blocks.flatMap((block) => ['--block', block]),
  ];
  /** Sends commands to the guest, and returns the console's output up to the line that matches. */
  async function ask(name: string, commands: string, until: string): Promise<string> {
    const ran = await world.run(['console', name, '--until', until, '--timeout', '60'], commands);
    assert.equal(ran.status, 0, `${ran.stdout}${ran.stderr}`);
    return ran.stdout;
  }
  async function start(name: string, ...blocks: string[]): Promise<void> {
    await world.json(...startArgs(name, ...blocks));
    await ask(name, 'g', '^>');
  }

  it('refuses images that it cannot use, and leaves nothing behind', async () => {
    const qcow2 = join(world.dir, 'a.qcow2');
    writeFileSync(qcow2, Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(1020)]));
    const odd = join(world.dir, 'odd');
    writeFileSync(odd, 'x'.repeat(1000));
    const empty = join(world.dir, 'empty');
    writeFileSync(empty, '');
    for (const [block, status, code, message] of [
      [`path=${qcow2}`, 1, 'BAD_IMAGE', `disk image ${qcow2} is in the format qcow2, not raw`],
      [`path=${odd}`, 1, 'BAD_IMAGE', `disk image ${odd} has 1000 bytes, not a multiple of 512`],
      [`path=${empty}`, 1, 'BAD_IMAGE', `disk image ${empty} is empty`],
      [`path=${world.dir}`, 1, 'BAD_IMAGE', `disk image ${world.dir} is a directory`],
      [`path=${image}x`, 3, 'NO_SUCH_FILE', `disk image ${image}x does not exist`],
    ] as const) {
      // The first disk is open already when the second is refused.
      const error = await world.fails(status, code, startArgs('m', `path=${image}`, block));
      assert.equal(error.message, message);
      assert(error.hint);
      assert.deepEqual(world.machines(), []);
    }
    await start('m', `path=${image}`);
  });

  it('refuses an image that another machine uses, unless both only read it', async () => {
    await start('a', `path=${image}`);
    for (const mode of ['', ',ro', ',cow']) {
      const error = await world.fails(1, 'NOT_POSSIBLE_NOW', startArgs('b', `path=${image}${mode}`));
      assert.equal(error.message, `disk image ${image} is in use by another machine or program`);
    }
    await world.json('stop', 'a');
    await start('a', `path=${image},ro`);
    await start('b', `path=${image},cow`);
    assert.deepEqual(world.machines().sort(), ['a', 'b']);
  });

  it('gives the guest a copy of a directory, which is in the snapshot', async () => {
    const directory = join(world.dir, 'seed');
    mkdirSync(directory);
    writeFileSync(join(directory, 'meta-data'), 'instance-id: one\n');
    writeFileSync(join(directory, 'user-data'), '#cloud-config\n');
    await world.json(...startArgs('a', `path=${image}`), '--share', directory);
    await world.json('save', 'a', '--tag', 'first', '--then', 'stop');
    rmSync(directory, { recursive: true });
    await world.json('restore', 'first', '--detach', '--name', 'b');
    await world.json('save', 'b', '--tag', 'second', '--then', 'stop');
    const disks = await Promise.all(
      ['first', 'second'].map(async (tag) => {
        const file = join(world.dir, tag);
        await world.json('disk', tag, '1', file);
        return readFileSync(file);
      }),
    );
    assert.equal(disks[0]!.toString('latin1', 32_808, 32_814), 'cidata', 'the label');
    assert(disks[0]!.includes('instance-id: one\n') && disks[0]!.includes('meta-data'));
    assert(disks[1]!.equals(disks[0]!));
  });

  it('refuses what it cannot share, and leaves nothing behind', async () => {
    const args = (path: string) => [...startArgs('m', `path=${image}`), '--share', path];
    const missing = await world.fails(3, 'NO_SUCH_FILE', args(`${world.dir}/missing`));
    assert.equal(missing.message, `${world.dir}/missing does not exist`);
    const device = await world.fails(2, 'USAGE', args('/dev/null'));
    assert.equal(device.message, '/dev/null is neither a file, a directory nor a symbolic link');
    assert.deepEqual(world.machines(), []);
    await start('m', `path=${image}`);
  });

  it('refuses snapshots without a disk, and regions that are none or do not exist', async () => {
    await world.json('put', image, '--tag', 'image');
    await start('a', 'snapshot=image', 'snapshot=image');
    await world.json('save', 'a', '--tag', 'two', '--then', 'stop');
    const choices = 'Choose one: snapshot=two:disk0, snapshot=two:disk1.';
    for (const [block, status, code, message, hint] of [
      [
        'snapshot=none',
        3,
        'NO_SUCH_SNAPSHOT',
        'no snapshot "none" in STORE',
        'livesnap ls lists the snapshots.',
      ],
      ['snapshot=two', 2, 'USAGE', 'snapshot two has 2 disks', choices],
      ['snapshot=two:disk7', 3, 'NO_SUCH_REGION', 'snapshot two has no region disk7', choices],
      ['snapshot=two:ram@0x0', 2, 'USAGE', 'region ram@0x0 of snapshot two is memory, not a disk', choices],
      [
        'snapshot=image:disk0',
        3,
        'NO_SUCH_REGION',
        'snapshot image has no region disk0',
        'Use snapshot=image:file.',
      ],
    ] as const) {
      const error = await world.fails(status, code, startArgs('m', block));
      assert.deepEqual([error.message.replace(world.store, 'STORE'), error.hint], [message, hint]);
    }
    await start('m', 'snapshot=two:disk1');
    await ask('m', 'wbB', '^0');
    await world.json('save', 'm', '--tag', 'changed', '--then', 'stop');
    const table = (await world.run(['diff', 'image', 'changed:disk0'])).stdout;
    assert.match(table, /^REGION .*\nfile → disk0 +256 KiB +256 KiB +1 +4 KiB\n$/);
    const { regions } = await world.json<{ regions: unknown[] }>(
      'diff',
      'two:disk1',
      'changed:disk0',
      '--ranges',
    );
    assert.deepEqual(regions, [
      {
        ...{ region: 'disk1', otherRegion: 'disk0', sizeBytes: [BLOCKS * 4096, BLOCKS * 4096] },
        ...{ pages: 1, bytes: 4096, ranges: [{ fromBytes: 4096, toBytes: 8192 }] },
      },
    ]);
    const lines = (await world.run(['diff', 'changed:disk0', 'image', '--ranges'])).stdout.split('\n');
    assert.equal(lines[2], 'disk0 → file offset 0x1000 to 0x2000');
    const error = await world.fails(3, 'NO_SUCH_REGION', ['diff', 'image', 'two:disk7']);
    assert.match(error.message, /^snapshot \w+ has no region "disk7"$/);
    assert.equal(error.hint, 'It has: ram@0x0, disk0, disk1.');
    await world.fails(2, 'USAGE', ['diff', 'image', 'two:']);
  });

  it('saves what was written to a stored image before a machine is stopped, unless told otherwise', async () => {
    await world.json('put', image, '--tag', 'image');
    await start('a', 'snapshot=image');
    await ask('a', 'wbB', '^0');
    await world.json('stop', 'a');
    const tags = async (): Promise<unknown[]> =>
      (await world.json<{ tags: string[] }[]>('ls')).map((snapshot) => snapshot.tags);
    assert.deepEqual(await tags(), [['image'], ['a-disk']]);
    await start('b', 'snapshot=a-disk');
    assert.match(await ask('b', 'rb', '^0'), /^0BB/m);
    await ask('b', 'wbC', '^0');
    await world.json('stop', 'b', '--discard');
    assert.deepEqual(await tags(), [['image'], ['a-disk']]);
    const out = join(world.dir, 'out');
    await world.json('disk', 'a-disk', '0', out);
  });

  it('saves the disks when the guest resets its machine', async () => {
    await world.json('put', image, '--tag', 'image');
    await start('a', 'snapshot=image');
    await ask('a', 'wbB', '^0');
    const ended = await world.run(['console', 'a'], 'q');
    assert.equal(ended.status, 0, ended.stderr);
    const [, saved] = await world.json<{ tags: string[]; kind: string }[]>('ls');
    assert.deepEqual([saved!.tags, saved!.kind], [['a-disk'], 'disk']);
  });

  it('does not stop a machine whose disks cannot be saved, and says how to lose them', async () => {
    await world.json('put', image, '--tag', 'image');
    await start('a', 'snapshot=image');
    await ask('a', 'wbB', '^0');
    const { rename } = await import('node:fs/promises');
    await rename(world.store, `${world.store}-away`);
    writeFileSync(world.store, 'no store');
    const error = await world.fails(1, 'DISKS_NOT_SAVED', ['stop', 'a']);
    assert.match(error.message, /^the disks could not be saved: /);
    assert.match(error.hint, /--discard/);
    const [row] = await world.json<{ state: string; reason: string }[]>('ps');
    assert.match(row!.reason, /^the disks could not be saved/);
    assert.match(await ask('a', 'rb', '^0'), /^0BB/m, 'the machine runs on');
    await world.json('stop', 'a', '--discard');
    assert.deepEqual(world.machines(), []);
  });

  it('restores disks without their image, with their writes in another directory', async () => {
    await start('a', `path=${image},cow`);
    await ask('a', 'wbB', '^0');
    await world.json('save', 'a', '--tag', 's', '--then', 'stop');
    truncateSync(image, 0);
    const overlays = join(world.dir, 'overlays');
    await world.fails(3, 'NO_SUCH_FILE', [
      'restore',
      's',
      '--overlay-dir',
      overlays,
      '--name',
      'r',
      '--detach',
    ]);
    mkdirSync(overlays);
    await world.json('restore', 's', '--overlay-dir', overlays, '--name', 'r', '--detach');
    assert.match(await ask('r', 'rb', '^0'), /^0BB/m);
    await ask('r', 'wcC', '^0');
    assert.deepEqual(readdirSync(overlays), []);
  });
});
