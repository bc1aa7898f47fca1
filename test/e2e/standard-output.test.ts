/** Standard streams that cannot be written. Lost output is always an error. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../src/native/project-root.js';
import { World } from './cli.js';

const COMMAND = join(projectRoot, 'bin/livesnap');

describe('the standard output', () => {
  let world: World;
  let file: string;
  before(async () => {
    world = new World();
    file = join(world.dir, 'file');
    writeFileSync(file, randomBytes(300_000));
    await world.json('put', file, '--tag', 'a');
  });
  after(() => world.end());

  /** Runs `livesnap ARGS REDIRECTIONS` in a shell. */
  function shell(args: string, redirections: string) {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', `"$0" ${args} ${redirections}`, COMMAND], {
      env: { ...world.env, dir: world.dir },
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  }

  const lost = (reason: string) => ({
    status: 1,
    stdout: '',
    stderr: `livesnap: cannot write the standard output: ${reason}, write\nThe output is incomplete; redirect it elsewhere.\n`,
  });

  for (const args of [
    'ls',
    'ls --json',
    'ls --quiet',
    'get a -',
    'rm nobody --json',
    '--help',
    'ls --help',
    '--version',
  ]) {
    it(`that is full or closed makes livesnap fail: ${args}`, () => {
      assert.deepEqual(shell(args, '>/dev/full'), lost('ENOSPC: no space left on device'));
      assert.deepEqual(shell(args, '>&-'), lost('EBADF: bad file descriptor'));
    });
  }

  it('that has room for only a part makes get fail', function () {
    const small = join(world.dir, 'small');
    mkdirSync(small);
    const script = 'mount -t tmpfs -o size=16k tmpfs "$1" && shift && "$@" >"$0"';
    const { status, stderr } = spawnSync(
      'unshare',
      ['--mount', 'sh', '-c', script, join(small, 'out'), small, COMMAND, 'get', 'a', '-'],
      { env: world.env, encoding: 'utf8' },
    );
    if (/^(mount|unshare):/m.test(stderr)) {
      process.stderr.write(`    SKIPPED, not tested: ${stderr}`);
      this.skip();
    }
    const said =
      'livesnap: cannot write the standard output: its disk is full\nFree some space there, or write to another disk.\n';
    assert.deepEqual({ status, stderr }, { status: 1, stderr: said });
  });

  it('whose reader closes the pipe is no failure', () => {
    for (const args of ['ls', 'get a -'])
      assert.deepEqual(shell(args, '2>"$dir/said" | true; cat "$dir/said"'), {
        status: 0,
        stdout: '',
        stderr: '',
      });
  });

  it('receives every byte as a file, a pipe or a device', () => {
    const bytes = readFileSync(file);
    assert.equal(shell('get a -', '>"$dir/out"').status, 0);
    assert.deepEqual(readFileSync(join(world.dir, 'out')), bytes);
    assert.equal(shell('get a -', '| cmp - "$dir/file"').status, 0);
    assert.equal(shell('get a -', '>/dev/null').status, 0);
  });

  it('is complete even if messages cannot be written to stderr', async () => {
    for (const redirection of ['2>/dev/full', '2>&-']) {
      const { status, stdout } = shell('put "$dir/file" --tag b', redirection);
      assert.equal(status, 0);
      assert.match(stdout, /^[0-9a-f]{32}\n$/);
    }
    assert.equal(shell('save nobody', '2>/dev/full').status, 3);
  });

  it('is written by the command wherever it is called from', () => {
    const link = join(world.dir, 'ls');
    symlinkSync(COMMAND, link);
    const version = /^\d+\.\d+\.\d+\n$/;
    assert.match(spawnSync(link, ['--version'], { encoding: 'utf8' }).stdout, version);
    const cwd = join(projectRoot, 'bin');
    assert.match(spawnSync('sh', ['livesnap', '--version'], { cwd, encoding: 'utf8' }).stdout, version);
  });
});
