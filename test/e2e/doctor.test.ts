/** The checks of the host. Checks of the installation: installation.test.ts. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { probe } from '../kvm/kvm.js';
import { MAIN, World } from './cli.js';

interface Check {
  name: string;
  ok: boolean;
  state: string;
  message: string;
  remedy: string | null;
}

describe('livesnap doctor', () => {
  let world: World;
  before(() => {
    world = new World();
  });
  after(() => world.end());

  it('reports each check with its state and a remedy', async () => {
    const { status, stdout } = await world.run(['doctor', '--json']);
    const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Check[] };
    assert.equal(status, ok ? 0 : 5);
    assert.equal(
      ok,
      checks.every((check) => check.ok),
    );
    for (const check of checks) {
      assert.deepEqual(Object.keys(check), ['name', 'ok', 'state', 'message', 'remedy']);
      assert.equal(check.ok, check.state !== 'wrong');
      if (check.state !== 'ok') assert.equal(typeof check.remedy, 'string');
    }
  });

  it('ends with exit status 5 without /dev/kvm, as start does', async function () {
    // In a mount namespace, /dev has what Node needs but no kvm.
    const dev = join(world.dir, 'dev');
    mkdirSync(dev);
    const script = 'cp -a /dev/null /dev/urandom "$1" && mount --bind "$1" /dev && shift && exec "$@"';
    const withoutKvm = (args: string[]) =>
      spawnSync(
        'unshare',
        ['--mount', 'sh', '-c', script, 'sh', dev, process.execPath, MAIN, ...args, '--json'],
        { encoding: 'utf8', env: world.env },
      );
    const doctor = withoutKvm(['doctor']);
    if (doctor.stdout === '' || doctor.stdout === null) {
      process.stderr.write(
        '    SKIPPED, not tested: /dev cannot be hidden here (root and unshare are needed)\n',
      );
      this.skip();
    }
    assert.equal(doctor.status, 5);
    const kvm = (JSON.parse(doctor.stdout).checks as Check[]).find(({ name }) => name === 'kvm')!;
    assert.deepEqual([kvm.ok, kvm.message], [false, '/dev/kvm is missing']);
    const start = withoutKvm(['start', '--kernel', probe('probe.bzImage'), '--detach']);
    assert.equal(start.status, 5, start.stdout);
    assert.equal(JSON.parse(start.stdout).error.code, 'NO_KVM');
    assert.deepEqual(world.machines(), []);
  });

  it('ends with exit status 5 if the store cannot be written', async () => {
    const { status, stdout } = await world.run(['doctor', '--json', '--store', '/proc/no']);
    assert.equal(status, 5);
    const store = (JSON.parse(stdout).checks as Check[]).find(({ name }) => name === 'store')!;
    assert.equal(store.ok, false);
    const text = await world.run(['doctor', '--store', '/proc/no']);
    assert.match(text.stdout, /^WRONG {2}store .*\n +→ [A-Z]/m);
  });
});
