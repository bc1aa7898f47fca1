/** Disks of the host's files over `livesnap serve`: what is allowed, and that only the open file counts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { buildDiskGuest } from '../kvm/disk-guest.js';
import { requireKvm } from '../kvm/kvm.js';
import { limit } from '../timeouts.js';
import { type World, worldOfEachTest } from './cli.js';
import { type Answer, Serving } from './serving.js';

const BLOCK_BYTES = 4096;
const WAIT = { prefer: 'wait' };

describe('disks of livesnap serve', function () {
  this.timeout(limit(120_000));
  let world: World;
  let server: Serving;
  let images: string;
  let image: string;
  let kernel: { path: string };
  worldOfEachTest((made) => {
    world = made;
  });
  before(function () {
    requireKvm(this);
  });
  beforeEach(async () => {
    images = join(realpathSync(world.dir), 'images');
    mkdirSync(images);
    kernel = { path: buildDiskGuest(join(images, 'kernel')) };
    image = join(images, 'disk.img');
    writeFileSync(image, Buffer.alloc(64 * BLOCK_BYTES, 'i'));
    server = await Serving.start(world, '--allow', images);
  });
  afterEach(() => server?.end('SIGKILL'));

  const start = (...disks: object[]): Promise<Answer> =>
    server.ask('/v1/machines', { body: { kernel, memoryBytes: 16 << 20, name: 'm', disks } });
  /** Sends commands to the guest, and returns the last line, which matches. */
  async function ask(commands: string, until: string): Promise<string> {
    const ran = await world.run(['console', 'm', '--until', until, '--timeout', '60'], commands);
    assert.equal(ran.status, 0, `${ran.stdout}${ran.stderr}`);
    return ran.stdout.trimEnd().split('\n').at(-1)!;
  }
  const open = (): string[] =>
    readdirSync(`/proc/${server.child.pid}/fd`).map((fd) => {
      try {
        return realpathSync(`/proc/${server.child.pid}/fd/${fd}`);
      } catch {
        return '';
      }
    });
  const first = (): string => String.fromCharCode(readFileSync(image)[BLOCK_BYTES]!);

  for (const [mode, written, inFile] of [
    ['rw', '0XX', 'X'],
    ['cow', '0XX', 'i'],
    ['ro', '0ii', 'i'],
  ] as const)
    it(`may be images that are ${mode}, and a restored machine does not need the file`, async () => {
      const given = join(images, '../images/disk.img');
      const started = await start({ path: given, ...(mode === 'rw' ? {} : { mode }) });
      assert.equal(started.status, 201, JSON.stringify(started.body));
      assert(!open().includes(image), 'the server has closed it');
      assert.equal(await ask('g', '^>'), '>');
      assert.equal((await ask('wbX', '^[0-9]'))[0], mode === 'ro' ? '1' : '0');
      assert.equal(await ask('rb', '^0'), written);
      const second = await server.ask('/v1/machines', {
        body: { kernel, memoryBytes: 16 << 20, disks: [{ path: image, mode: 'rw' }] },
      });
      assert.deepEqual([second.status, second.body.code], [409, 'NOT_POSSIBLE_NOW']);
      assert.match(second.body.detail as string, /images\/disk\.img is in use/);
      const saved = await server.ask('/v1/machines/m/save', {
        body: { tags: ['one'], then: 'stop' },
        headers: WAIT,
      });
      assert.equal(saved.status, 200, JSON.stringify(saved.body));
      assert.equal(first(), inFile);
      const details = await server.ask<{ machine: { config: { disks: { source: unknown }[] } } }>(
        '/v1/snapshots/one',
      );
      assert.deepEqual(details.body.machine.config.disks[0]!.source, { kind: 'file', path: image });
      // What the path names by now is not opened.
      rmSync(image);
      execFileSync('mkfifo', [image]);
      const restored = await server.ask('/v1/snapshots/one/restore', { body: { name: 'm' } });
      assert.equal(restored.status, 201, JSON.stringify(restored.body));
      assert.equal(await ask('rb', '^0'), written);
    });

  it('are refused with one answer outside of what is allowed, whether they exist or not', async () => {
    writeFileSync(join(world.dir, 'secret'), Buffer.alloc(512));
    symlinkSync(join(world.dir, 'secret'), join(images, 'link'));
    symlinkSync('..', join(images, 'up'));
    execFileSync('mkfifo', [join(images, 'fifo')]);
    const before = open().length;
    const answers: unknown[] = [];
    for (const path of [
      ...['link', 'up/secret', '../secret', '../absent', 'absent', 'fifo', '.', 'disk.img/'].map(
        (name) => `${images}/${name}`,
      ),
      ...['/dev/zero', '/dev/kvm', '/proc/self/mem', 'images/disk.img', 'disk.img'],
    ])
      for (const mode of ['rw', 'ro', 'cow']) {
        // The first is open already when the second is refused.
        const { status, body } = await start({ path: image }, { path, mode });
        answers.push({ status, body });
      }
    for (const each of answers) assert.deepEqual(each, answers[0]);
    const { status, body } = answers[0] as Answer;
    assert.deepEqual([status, body.detail], [403, 'this file of the host is not allowed']);
    assert.deepEqual([await world.json('ps'), open().length], [[], before], 'nothing is left');
    assert.equal((await start({ path: image })).status, 201, 'nor is it locked');
  });

  it('are refused if they are no raw images, by the name that was given', async () => {
    writeFileSync(
      join(images, 'qcow2'),
      Buffer.concat([Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(1020)]),
    );
    writeFileSync(join(images, 'odd'), 'x'.repeat(1000));
    writeFileSync(join(images, 'empty'), '');
    for (const [name, detail] of [
      ['qcow2', `disk image ${images}/qcow2 is in the format qcow2, not raw`],
      ['odd', `disk image ${images}/odd has 1000 bytes, not a multiple of 512`],
      ['empty', `disk image ${images}/empty is empty`],
    ]) {
      const { status, body } = await start({ path: join(images, name!) });
      assert.deepEqual([status, body.code, body.detail], [422, 'BAD_IMAGE', detail]);
    }
    assert.deepEqual(await world.json('ps'), []);
    for (const disk of [{ path: image, snapshot: 'a' }, { path: image, region: 'disk0' }, { path: '' }, {}])
      assert.equal((await start(disk)).status, 400, JSON.stringify(disk));
  });

  it('are shared only by machines that do not write to them', async () => {
    const twice = await start({ path: image }, { path: image, mode: 'ro' });
    assert.deepEqual([twice.status, twice.body.code], [409, 'NOT_POSSIBLE_NOW']);
    assert.equal((await start({ path: image, mode: 'ro' }, { path: image, mode: 'cow' })).status, 201);
    const own = ['start', '--kernel', kernel.path, '--memory', '16M', '--detach', '--block'];
    await world.fails(1, 'NOT_POSSIBLE_NOW', [...own, `path=${image}`]);
    await world.json(...own, `path=${image},ro`);
    // The lock is of the file that was opened, whatever has its name.
    renameSync(image, join(images, 'renamed'));
    writeFileSync(image, Buffer.alloc(512));
    await world.json(...own, `path=${image}`);
  });
});
