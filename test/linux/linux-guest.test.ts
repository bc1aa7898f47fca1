/**
 * The demonstration of the original project as a test, with the built command line:
 * 1. Linux boots to its shell, and a shell loop draws a progress bar.
 * 2. The machine is saved half-way and stopped.
 * 3. In a new process the bar continues to 100%. The shell has its variables and its history.
 * 4. Its random numbers have a new seed. `stop` makes it power off.
 *
 * LIVESNAP_LINUX_GUEST is the directory that scripts/linux-guest filled.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { World } from '../e2e/cli.js';
import { GUEST, LinuxConsole, PROMPT, requireLinuxGuest } from './linux-guest.js';

describe('a real Linux guest', () => {
  let world: World;

  before(function () {
    requireLinuxGuest(this, ['vmlinux', 'bzImage', 'initrd']);
  });

  beforeEach(() => {
    world = new World();
  });

  afterEach(async () => {
    for (const console of consoles.splice(0)) console.close();
    await world.end();
  });

  const start = (name: string, kernel: string, ...more: readonly string[]): Promise<unknown> =>
    world.json(
      ...['start', '--kernel', join(GUEST, kernel), '--initrd', join(GUEST, 'initrd'), '--memory', '128M'],
      ...['--detach', '--name', name, ...more],
    );

  const consoles: LinuxConsole[] = [];

  function open(name: string): LinuxConsole {
    const console = new LinuxConsole(world.spawn('console', name));
    consoles.push(console);
    return console;
  }

  it('boots from a bzImage to a shell, and continues a progress bar in a new process', async () => {
    await start('first', 'bzImage', '--cpus', '2');
    const before = open('first');
    const { match } = await before.until(/LINUX READY (\S+)\r*\n/);
    assert.match(match[1]!, /-livesnap$/);
    await before.until(PROMPT);

    // An interactive shell on a controlling terminal: its output, both vCPUs, Ctrl-C.
    await before.command('echo answer $((6 * 7))', /answer 42\r*\n/);
    await before.command('echo cpus $(nproc)', /cpus 2\r*\n/);
    await before.command('echo entropy $(head -c 16 /dev/hwrng | wc -c)', /entropy 16\r*\n/);
    await before.interrupted();

    // A nonce that only the RAM of this machine has, and a bar of 20 steps.
    await before.command('read nonce < /proc/sys/kernel/random/uuid; done=0');
    const nonce = (await before.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1];
    before.send(
      'while [ $done -lt 20 ]; do done=$((done + 1)); printf "\\r%d%% of the bar" $((done * 5)); sleep 0.2; done\n',
    );
    await before.until(/\r50% of the bar/);
    const saved = await world.json<{ id: string }>('save', 'first', '--tag', 'half', '--then', 'stop');
    await before.ended();
    assert.deepEqual(await world.json('ps'), []);

    // Twice from one snapshot, because the first restore must not change it.
    for (const name of ['second', 'third']) {
      await world.json('restore', saved.id, '--name', name, '--detach');
      const after = open(name);
      const { text } = await after.until(/100% of the bar/);
      // The console begins with what it showed before the save. The bar continues from there.
      const steps = [...text.matchAll(/\r(\d+)% of the bar/g)].map(([, percent]) => Number(percent));
      assert(
        steps.every((step, i) => i === 0 || step > steps[i - 1]!),
        `the bar began again: ${steps}`,
      );
      await after.until(PROMPT);
      assert.equal((await after.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1], nonce);
      await after.command('echo steps $done', /steps 20\r*\n/);
      await after.command("echo typed $(history | grep -c 'answer [$]')", /typed 1\r*\n/);
      await after.command('echo cpus $(nproc)', /cpus 2\r*\n/);
      await after.command('echo entropy $(head -c 16 /dev/hwrng | wc -c)', /entropy 16\r*\n/);
      await after.interrupted();
      // Linux logs it for the new VM generation ID: once, because the saved machine had booted.
      await after.command(
        'echo forks $(dmesg | grep -c "crng reseeded due to virtual machine fork")',
        /forks 1\r*\n/,
      );
      const stopped = await world.json('stop', name, '--timeout', '60');
      assert.deepEqual([stopped.how, stopped.reason], ['poweredOff', null]);
      await after.ended();
    }
  });

  it('reads what was typed before it booted, and a long paste, whole', async () => {
    for (const kernel of ['bzImage', 'vmlinux']) {
      await start(kernel, kernel);
      const console = open(kernel);
      console.send('echo early $((6 * 7)) input\n');
      await console.until(/^early 42 input\r*$/m);
      await console.until(PROMPT);
      console.send('(stty -echo; echo begun; head -c 10000 | md5sum; stty echo)\n');
      await console.until(/begun\r*\n/);
      const paste = Array.from({ length: 200 }, (_, i) => `${String(i).padStart(49, 'p')}\n`).join('');
      console.send(paste);
      const { match } = await console.until(/([0-9a-f]{32}) {2}-\r*\n/);
      assert.equal(match[1], createHash('md5').update(paste).digest('hex'));
      await world.json('stop', kernel, '--force');
    }
  });

  it('gives memory that it frees back to the host, also after a restore', async () => {
    /** How much memory of the host the machine's RAM has. */
    const usedBytes = async (name: string): Promise<number> => {
      const machines = await world.json<{ name: string; pid: number }[]>('ps');
      const fds = `/proc/${machines.find((each) => each.name === name)!.pid}/fd`;
      const ram = readdirSync(fds).find((fd) => readlinkSync(join(fds, fd)).includes('livesnap-ram'))!;
      return statSync(join(fds, ram)).blocks * 512;
    };
    const FILE_BYTES = 32 << 20;
    /** What is certain to come back: only whole blocks of 4 MiB do. */
    const FREED_BYTES = 8 << 20;
    const freesMemory = async (name: string, console: LinuxConsole): Promise<void> => {
      // A restored console begins with what it showed before: each answer names its machine.
      const fill = `dd if=/dev/zero of=/tmp/file bs=1M count=${FILE_BYTES >> 20} 2>/dev/null`;
      await console.command(`${fill}; echo ${name} filled $?`, new RegExp(`${name} filled 0\\r*\\n`));
      const filled = await usedBytes(name);
      assert(filled >= FILE_BYTES, `${filled} bytes`);
      await console.command(`rm /tmp/file; echo ${name} freed $?`, new RegExp(`${name} freed 0\\r*\\n`));
      // Linux reports free pages two seconds later, in blocks of 4 MiB.
      while ((await usedBytes(name)) > filled - FREED_BYTES) await sleep(100);
    };
    // Linux reports only while more than 32 blocks are free: 128 MiB.
    await world.json(
      ...['start', '--kernel', join(GUEST, 'bzImage'), '--initrd', join(GUEST, 'initrd'), '--memory', '256M'],
      ...['--balloon', '--detach', '--name', 'before'],
    );
    const before = open('before');
    await before.until(/LINUX READY/);
    await before.until(PROMPT);
    await before.command('read nonce < /proc/sys/kernel/random/uuid');
    const nonce = (await before.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1];
    await freesMemory('before', before);
    const saved = await world.json<{ id: string }>('save', 'before', '--then', 'stop');
    await world.json('restore', saved.id, '--name', 'after', '--detach');
    const after = open('after');
    assert.equal((await after.command('echo nonce is $nonce', /nonce is ([0-9a-f-]{36})/))[1], nonce);
    await freesMemory('after', after);
    assert.equal((await world.json('stop', 'after', '--timeout', '60')).how, 'poweredOff');
  });

  it('boots from an ELF vmlinux without ACPI, finds its devices, and ends when the guest does', async () => {
    await start('elf', 'vmlinux', '--cmdline', 'console=ttyS0 reboot=t panic=-1 acpi=off');
    const console = open('elf');
    await console.until(/LINUX READY/);
    await console.until(PROMPT);
    await console.command('echo cpus $(nproc)', /cpus 1\r*\n/);
    await console.command('echo entropy $(head -c 16 /dev/hwrng | wc -c)', /entropy 16\r*\n/);
    console.send('exit\n');
    await console.ended();
    assert.deepEqual(await world.json('ps'), []);
  });
});
