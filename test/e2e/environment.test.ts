/** Unusual environments: users without an entry in /etc/passwd, missing and relative directories. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requireKvm } from '../kvm/kvm.js';
import { checkoutFor } from '../other-user.js';

/** An id that /etc/passwd does not list. */
const UNLISTED = 12_345;

describe('livesnap', () => {
  let dir: string;
  let own: string;
  let main: string;
  before(function () {
    if (process.getuid!() !== 0) {
      process.stderr.write('    SKIPPED, not tested: only root can become another user\n');
      this.skip();
    }
    main = join(checkoutFor(UNLISTED), 'dist/bin/livesnap.js');
  });
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'livesnap-environment-'));
    chmodSync(dir, 0o755);
    own = join(dir, 'own');
    mkdirSync(own, { mode: 0o700 });
    chownSync(own, UNLISTED, UNLISTED);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  interface As {
    /** Options of setpriv(1). */
    readonly capabilities?: readonly string[];
    readonly cwd?: string;
    readonly env: NodeJS.ProcessEnv;
  }

  /** Runs with only the variables of `env`. */
  function run({ capabilities = [], cwd = dir, env }: As, ...args: string[]) {
    const { status, stdout, stderr } = spawnSync(
      'setpriv',
      [
        `--reuid=${UNLISTED}`,
        `--regid=${UNLISTED}`,
        '--clear-groups',
        ...capabilities,
        process.execPath,
        main,
        ...args,
      ],
      { cwd, env: { PATH: process.env.PATH, ...env }, encoding: 'utf8' },
    );
    return { status, stdout, stderr };
  }

  it('names a kernel, initrd, file or directory that the user may not read', () => {
    const secret = join(dir, 'secret');
    writeFileSync(secret, 'x', { mode: 0o600 });
    const secretDirectory = `${secret}-directory`;
    mkdirSync(secretDirectory, { mode: 0o700 });
    const env = { HOME: own, XDG_RUNTIME_DIR: own };
    for (const args of [
      ['start', '--kernel', secret],
      ['start', '--kernel', join(checkoutFor(UNLISTED), 'guest/build/probe.elf'), '--initrd', secret],
      ['put', secret],
      ['import', secretDirectory],
    ]) {
      const { error } = JSON.parse(run({ env }, ...args, '--json').stdout);
      assert.equal(error.code, 'NO_PERMISSION', error.message);
      assert.ok(error.message.includes(secret), error.message);
    }
  });

  it('lists machines and stores files for a user without an entry in /etc/passwd', () => {
    const env = { HOME: own, XDG_RUNTIME_DIR: own };
    assert.deepEqual(run({ env }, 'ps', '--json'), { status: 0, stdout: '[]\n', stderr: '' });
    assert.deepEqual(run({ env: { HOME: own } }, 'ps', '--json'), { status: 0, stdout: '[]\n', stderr: '' });
    assert.equal(run({ env }, 'put', '/etc/hostname', '--quiet').status, 0);
    const doctor = JSON.parse(run({ env }, 'doctor', '--json').stdout);
    for (const name of ['run directory', 'store'])
      assert.equal(doctor.checks.find((check: { name: string }) => check.name === name).ok, true, name);
  });

  it('starts and stops a machine for a user without an entry in /etc/passwd', function () {
    requireKvm(this);
    const env = { HOME: own, XDG_RUNTIME_DIR: own };
    const kernel = join(checkoutFor(UNLISTED), 'guest/build/probe.bzImage');
    // The group of /dev/kvm differs from host to host, and may be root's.
    const capabilities = ['--inh-caps=+dac_override', '--ambient-caps=+dac_override'];
    const started = run(
      { env, capabilities },
      'start',
      '--kernel',
      kernel,
      '--memory',
      '32M',
      '--detach',
      '--name',
      'u',
    );
    assert.deepEqual([started.status, started.stdout], [0, 'u\n'], started.stderr);
    assert.equal(run({ env }, 'stop', 'u').status, 0);
    assert.deepEqual(readdirSync(join(own, 'livesnap')), []);
  });

  it('asks for HOME or a store if there is neither', () => {
    for (const env of [{}, { HOME: '' }, { HOME: '', XDG_DATA_HOME: '', LIVESNAP_STORE: '' }]) {
      const { status, stdout } = run({ env, cwd: own }, 'put', '/etc/hostname', '--json');
      assert.equal(status, 2);
      const { error } = JSON.parse(stdout);
      assert.deepEqual(
        [error.code, error.hint],
        ['USAGE', 'Set HOME, or name the store with --store DIR or LIVESNAP_STORE.'],
      );
      assert.equal(run({ env: { ...env, XDG_RUNTIME_DIR: own } }, 'ps').status, 0, 'ps needs no store');
      const doctor = run({ env }, 'doctor', '--json');
      assert.equal(doctor.status, 5);
      const store = JSON.parse(doctor.stdout).checks.find(
        (check: { name: string }) => check.name === 'store',
      );
      assert.deepEqual([store.ok, store.remedy], [false, error.hint]);
    }
    assert.deepEqual(readdirSync(own), []);
  });

  it('ignores relative directories in variables, with one note', () => {
    const env = { HOME: own, XDG_DATA_HOME: 'data', XDG_RUNTIME_DIR: 'run' };
    const put = run({ env, cwd: own }, 'put', '/etc/hostname');
    assert.equal(put.status, 0);
    assert.equal(
      put.stderr.match(/^note: XDG_DATA_HOME is ignored: "data" is not an absolute path$/gm)?.length,
      1,
    );
    assert.deepEqual(readdirSync(own), ['.local']);
    const ps = run({ env, cwd: own }, 'ps', '--json');
    assert.deepEqual([ps.status, ps.stdout], [0, '[]\n']);
    assert.equal(ps.stderr, 'note: XDG_RUNTIME_DIR is ignored: "run" is not an absolute path\n');
    assert.equal(run({ env, cwd: own }, 'ps', '--quiet').stderr, '');
  });

  it('resolves a relative LIVESNAP_STORE against the working directory', () => {
    const env = { HOME: own, LIVESNAP_STORE: 'here' };
    assert.equal(run({ env, cwd: own }, 'put', '/etc/hostname').status, 0);
    assert.deepEqual(readdirSync(own), ['here']);
  });

  it('refuses a run directory of another user, in every verb that uses it', () => {
    const theirs = join(dir, 'theirs');
    mkdirSync(join(theirs, 'livesnap', 'a'), { recursive: true, mode: 0o700 });
    writeFileSync(join(theirs, 'livesnap', 'a', 'lock'), '', { mode: 0o600 });
    const env = { HOME: own, XDG_RUNTIME_DIR: theirs };
    for (const mode of [0o700, 0o755]) {
      chmodSync(theirs, mode);
      for (const args of [['ps'], ['console', 'a'], ['pause', 'a'], ['stop', 'a'], ['save', 'a']]) {
        const { status, stdout } = run({ env }, ...args, '--json');
        assert.equal(status, 1, `${args.join(' ')}: ${stdout}`);
        const { error } = JSON.parse(stdout);
        assert.equal(error.code, 'SYSTEM');
        assert.match(error.message, /^(cannot read )?the run directory .*\/theirs\/livesnap/);
        assert.match(error.hint, /^Set XDG_RUNTIME_DIR to a directory of yours/);
      }
      const doctor = JSON.parse(run({ env }, 'doctor', '--json').stdout);
      const found = doctor.checks.find((check: { name: string }) => check.name === 'run directory');
      assert.equal(found.ok, false);
      assert.match(found.remedy, /^Set XDG_RUNTIME_DIR to a directory of yours/);
    }
  });

  it('reports that the working directory was removed', () => {
    const { stdout } = spawnSync(
      'sh',
      [
        '-c',
        'mkdir gone && cd gone && rmdir ../gone && "$@"',
        'sh',
        process.execPath,
        main,
        'ls',
        '--store',
        'x',
        '--json',
      ],
      { cwd: dir, encoding: 'utf8' },
    );
    assert.deepEqual(JSON.parse(stdout).error, {
      code: 'NO_SUCH_FILE',
      message: 'the working directory was removed',
      hint: 'Change to a directory that exists.',
    });
  });
});
