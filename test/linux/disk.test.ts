/**
 * Linux on a disk. Its root is an ext4 image on virtio-blk. A program writes to the disk, exchanges lines over a TCP
 * connection, and counts on all vCPUs, while the machine is saved. The store is copied, the original is removed, and the
 * machine is restored from the copy.
 *
 * Linux boots once, because that is slow where ring 0 is emulated. Each test restores the snapshot.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { World } from '../e2e/cli.js';
import { lockCounts } from '../kvm/lock-counts.js';
import { GUEST, LinuxConsole, PROMPT, requireLinuxGuest } from './linux-guest.js';

const CPUS = 2;
/** The records of the program are in this directory of the guest. */
const DIRECTORY = '/var/lib/load';
const RECORD_BYTES = 64;

interface Progress {
  readonly nonce: string;
  readonly locked: bigint;
  /** Records that fdatasync had put on the disk. */
  readonly synced: number;
  readonly echoed: number;
}

describe('Linux with its root on a disk', () => {
  let world: World;
  let original: string;
  let saved: string;
  let atSave: Progress;
  const consoles: LinuxConsole[] = [];

  function open(name: string): LinuxConsole {
    const console = new LinuxConsole(world.spawn('console', name));
    consoles.push(console);
    return console;
  }

  /** What the program has done. It checks the records on the disk, and fails by itself when an echo is wrong. */
  async function progress(console: LinuxConsole): Promise<Progress> {
    const ask = async (line: string, answer: RegExp): Promise<RegExpExecArray> => {
      console.send(`${line}\n`);
      return (await console.until(answer)).match;
    };
    const nonce = (await ask('nonce', /NONCE ([0-9a-f]{16})\r*\n/))[1]!;
    const { locked } = lockCounts((await ask('locks', /(LOCKS [^\r\n]*)\r*\n/))[1]!);
    const [, right, synced] = await ask('disk', /DISK right=(\d+)\/(\d+) written=\d+\r*\n/);
    assert.equal(right, synced, 'every synced record is on the disk');
    const echoed = Number((await ask('tcp', /TCP echoed=(\d+)\r*\n/))[1]);
    return { nonce, locked, synced: Number(synced), echoed };
  }

  /** Waits until the program has gone on in all its parts. */
  async function goesOn(console: LinuxConsole, from: Progress): Promise<void> {
    for (;;) {
      const now = await progress(console);
      assert.equal(now.nonce, from.nonce);
      assert(now.locked >= from.locked && now.synced >= from.synced && now.echoed >= from.echoed);
      if (now.locked > from.locked && now.synced > from.synced && now.echoed > from.echoed) return;
    }
  }

  before(async function () {
    requireLinuxGuest(this, ['bzImage', 'initrd', 'disk.ext4']);
    world = new World();
    original = world.store;
    await world.json(
      ...['start', '--kernel', join(GUEST, 'bzImage'), '--initrd', join(GUEST, 'initrd'), '--memory', '128M'],
      ...['--cmdline', 'console=ttyS0 reboot=t panic=-1 root=/dev/vda', '--cpus', `${CPUS}`],
      ...['--block', `path=${join(GUEST, 'disk.ext4')},cow`, '--detach', '--name', 'first'],
    );
    const console = open('first');
    await console.until(/LINUX READY/);
    await console.until(PROMPT);
    await console.command('. /etc/os-release; echo root $ID $VERSION_ID', /root debian 12\r*\n/);
    await console.command('ifconfig lo 127.0.0.1 up');
    console.send(`load locks=${CPUS} disk=${DIRECTORY} echo=7 tcp=127.0.0.1:7\n`);
    const { match } = await console.until(/LOAD READY nonce=([0-9a-f]{16})\r*\n/);
    const nothing = { nonce: match[1]!, locked: 0n, synced: 0, echoed: 0 };
    await goesOn(console, nothing);
    ({ id: saved } = await world.json<{ id: string }>('save', 'first', '--tag', 'busy'));
    // The saved machine goes on, and its disk is not that of the snapshot.
    atSave = await progress(console);
    await world.json('stop', 'first', '--discard');
    await console.ended();

    const copy = join(world.dir, 'elsewhere/store');
    mkdirSync(join(world.dir, 'elsewhere'));
    cpSync(original, copy, { recursive: true });
    rmSync(original, { recursive: true });
    world.env.LIVESNAP_STORE = copy;
  });

  after(async () => {
    for (const console of consoles.splice(0)) console.close();
    await world?.end();
  });

  it('continues its process, its connection and its counts from a copy of the store', async () => {
    for (const name of ['second', 'third']) {
      await world.json('restore', saved, '--name', name, '--detach');
      const console = open(name);
      const restored = await progress(console);
      assert.equal(restored.nonce, atSave.nonce);
      await goesOn(console, restored);
      await world.json('stop', name, '--discard');
    }
  });

  it('leaves a clean file system with every synced record in the snapshot', async () => {
    const disk = join(world.dir, 'disk.ext4');
    await world.json('disk', saved, '0', disk);
    const records = checkedRecords(disk);
    assert.equal(records.nonce, atSave.nonce);
    assert(records.count >= 1);
  });

  it('is saved again, and its records are all there', async () => {
    await world.json('restore', saved, '--name', 'again', '--detach');
    const console = open('again');
    await goesOn(console, await progress(console));
    const { synced } = await progress(console);
    const { id } = await world.json<{ id: string }>('save', 'again', '--then', 'stop');
    const disk = join(world.dir, 'again.ext4');
    await world.json('disk', id, '0', disk);
    assert(checkedRecords(disk).count >= synced, 'no synced record is missing');
  });

  /** Replays the journal, as at a boot, checks that nothing is wrong then, and reads the records. */
  function checkedRecords(disk: string): { count: number; nonce: string } {
    const run = (command: string, ...args: string[]): string => {
      const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'latin1' });
      assert.equal(status, 0, `${command} ${args.join(' ')}: ${stdout}${stderr}`);
      return stdout;
    };
    run('e2fsck', '-p', disk);
    run('e2fsck', '-f', '-n', disk);
    const records = run('debugfs', '-R', `cat ${DIRECTORY}/records`, disk);
    const count = Math.floor(records.length / RECORD_BYTES);
    const nonce = records.slice(17, 33);
    for (let record = 0; record < count; record++) {
      const text = records.slice(record * RECORD_BYTES, (record + 1) * RECORD_BYTES);
      assert.match(text, /^[0-9a-f]{16} [0-9a-f]{16} [0-9a-f]{16} {13}\n$/);
      assert.equal(Number(`0x${text.slice(0, 16)}`), record + 1, 'no record is missing or doubled');
      assert.equal(text.slice(17, 33), nonce);
    }
    return { count, nonce };
  }
});
