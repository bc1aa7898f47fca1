/** What can be said without a machine or a store: help, wrong usage, doctor. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { MAIN, World } from './cli.js';

describe('the command line', () => {
  let world: World;
  before(() => {
    world = new World();
  });
  after(() => world.end());

  const VERBS =
    'start ps console pause resume stop save restore ls show stats tag rm gc check repair put get doctor';

  it('has every verb, each with its help', async () => {
    const { status, stdout } = await world.run(['--help']);
    assert.equal(status, 0);
    for (const verb of VERBS.split(' ')) {
      assert.match(stdout, new RegExp(`^ {2}${verb}\\b`, 'm'));
      const help = await world.run([verb, '--help']);
      assert.equal(help.status, 0);
      assert.match(help.stdout, new RegExp(`^Usage: livesnap ${verb}`));
      assert.match(help.stdout, /--json/);
      assert.match(help.stdout, /--store <dir>/);
      assert.match(help.stdout, /--quiet/);
    }
  });

  it('says its version', async () => {
    assert.match((await world.run(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
  });

  it('without anything shows its help, on stderr', async () => {
    const { status, stdout, stderr } = await world.run([]);
    assert.equal(status, 2);
    assert.equal(stdout, '');
    assert.match(stderr, /Usage: livesnap VERB/);
    assert.match((await world.run(['--quiet'])).stderr, /^livesnap: no verb is given$/m);
    assert.match((await world.run(['help', 'save'])).stdout, /^Usage: livesnap save/);
  });

  const WRONG: [string[], RegExp][] = [
    [['frobnicate'], /unknown command/],
    [['help', 'frobnicate'], /unknown command/],
    [['ls', '--frob'], /unknown option/],
    [['ls', 'extra'], /too many arguments/],
    [['show'], /missing required argument/],
    [['start'], /needs a kernel/],
    [['start', '--kernel', '/dev/null', '--memory', '0'], /needs memory/],
    [['start', '--kernel', '/dev/null', '--memory', '100T'], /more than this host has/],
    [['start', '--kernel', '/dev/null', '--memory', '12345'], /multiple of 4096/],
    [['start', '--kernel', '/dev/null', '--memory', 'lots'], /not a size/],
    [['start', '--kernel', '/dev/null', '--cpus', '0'], /not a number of vCPUs/],
    [['start', '--kernel', '/dev/null', '--cpus', '2', '--vcpu', 'num=2'], /two spellings/],
    [['start', '--kernel', 'path=/dev/null,cmdline=a', '--cmdline', 'b'], /twice/],
    [['start', '--kernel', '/dev/null', '--port', '0'], /not a port/],
    [['start', '--kernel', '/dev/null', '--lazy'], /unknown option/],
    [['restore'], /needs a snapshot/],
    [['restore', 'a', '--eager'], /unknown option/],
    [['ls', '--store', ''], /--store: an empty value/],
    [['restore', 'a', '--cpu_path', 'b'], /different snapshots/],
    [['--cpu_path', 'a', '--memory_path', 'b'], /different snapshots/],
    [['--kernel', 'cmdline=x'], /no path=/],
    [['save', 'a', '--then', 'fly'], /not resume, pause or stop/],
    [['console', 'a', '--until', '('], /regular expression/],
    [['stop', '../a'], /not a valid machine name/],
    [['diff', 'a', 'b'], /unknown command/],
  ];
  for (const [args, message] of WRONG) {
    it(`refuses ${args.join(' ')}`, async () => {
      assert.match((await world.fails(2, 'USAGE', args, true)).message, message);
    });
  }

  it('takes the options of every verb before it, too', async () => {
    const { status, stdout } = await world.run(['--json', '--store', '/nowhere', 'stop', 'nobody']);
    assert.equal(status, 3);
    assert.equal(JSON.parse(stdout).error.code, 'NO_SUCH_MACHINE');
  });

  it('knows no machine that is not there', async () => {
    for (const verb of ['console', 'pause', 'resume', 'stop', 'save'])
      await world.fails(3, 'NO_SUCH_MACHINE', [verb, 'nobody']);
    assert.deepEqual(await world.json('ps'), []);
  });

  it('names a kernel that is not there, or no file', async () => {
    assert.match(
      (await world.fails(3, 'NO_SUCH_FILE', ['start', '--kernel', '/no/kernel'])).message,
      /\/no\/kernel/,
    );
    await world.fails(3, 'NO_SUCH_FILE', ['start', '--kernel', MAIN_KERNEL, '--initrd', '/no/initrd']);
    await world.fails(1, 'BAD_IMAGE', ['start', '--kernel', '/']);
    assert.deepEqual(world.machines(), []);
  });

  it('lets doctor answer, whatever it finds', async () => {
    const { status, stdout } = await world.run(['doctor', '--json']);
    const { ok, checks } = JSON.parse(stdout);
    assert.equal(status, ok ? 0 : 5);
    assert.equal(
      ok,
      checks.every((check: { ok: boolean }) => check.ok),
    );
    for (const check of checks) {
      assert.deepEqual(Object.keys(check), ['name', 'ok', 'state', 'message', 'remedy']);
      assert.equal(check.ok, check.state !== 'wrong');
      if (check.state !== 'ok') assert.equal(typeof check.remedy, 'string');
    }
  });

  it('says that there is no KVM, with exit status 5', async function () {
    // A /dev of its own, in a mount namespace of its own, with all that Node needs but no kvm.
    const dev = join(world.dir, 'dev');
    mkdirSync(dev);
    const script = 'cp -a /dev/null /dev/urandom "$1" && mount --bind "$1" /dev && shift && exec "$@"';
    const hidden = (args: string[]) =>
      spawnSync(
        'unshare',
        ['--mount', 'sh', '-c', script, 'sh', dev, process.execPath, MAIN, ...args, '--json'],
        {
          encoding: 'utf8',
          env: world.env,
        },
      );
    const doctor = hidden(['doctor']);
    if (doctor.stdout === '' || doctor.stdout === null) {
      process.stderr.write(
        '    SKIPPED, not tested: /dev cannot be hidden here (root and unshare are needed)\n',
      );
      this.skip();
    }
    assert.equal(doctor.status, 5);
    const kvm = JSON.parse(doctor.stdout).checks.find((check: { name: string }) => check.name === 'kvm');
    assert.deepEqual([kvm.ok, kvm.message], [false, 'there is no /dev/kvm']);
    const start = hidden(['start', '--kernel', probe('probe.bzImage'), '--detach']);
    assert.equal(start.status, 5, start.stdout);
    assert.equal(JSON.parse(start.stdout).error.code, 'NO_KVM');
    assert.deepEqual(world.machines(), []);
  });

  it('lets doctor name what is wrong, with exit status 5', async () => {
    const { status, stdout } = await world.run(['doctor', '--json', '--store', '/proc/no']);
    assert.equal(status, 5);
    const store = JSON.parse(stdout).checks.find((check: { name: string }) => check.name === 'store');
    assert.equal(store.ok, false);
  });
});

/** Any file that exists: it is not looked into before the others are found. */
const MAIN_KERNEL = process.execPath;
