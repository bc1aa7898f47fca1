/** Directories and snapshots as operands of copy, export and import: what is refused, and that nothing is left behind. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ending, MAIN, World } from './cli.js';

describe('an operand', function () {
  this.timeout(120_000);
  let world: World;
  beforeEach(async () => {
    world = new World();
    writeFileSync(join(world.dir, 'file'), 'contents');
    await world.json('put', join(world.dir, 'file'), '--tag', 'f');
  });
  afterEach(() => world.end());

  it('that names no snapshot makes copy refuse all, and create no store', async () => {
    const other = join(world.dir, 'other');
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'f', 'nosuch', '--to', other]);
    assert.equal(existsSync(other), false);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', [
      'copy',
      'f',
      'nosuch',
      '--from',
      world.store,
      '--store',
      other,
    ]);
    assert.equal(existsSync(other), false);
    await world.fails(3, 'NO_SUCH_FILE', ['copy', 'f', '--from', join(world.dir, 'none'), '--store', other]);
    assert.equal(existsSync(other), false);
    await world.json('copy', 'f', '--to', other);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'f', 'nosuch', '--to', other]);
  });

  it('that is the other store gets no hint about --store', async () => {
    const none = join(world.dir, 'none');
    const foreign = join(world.dir, 'foreign');
    mkdirSync(foreign);
    writeFileSync(join(foreign, 'x'), '');
    for (const args of [
      ['copy', 'f', '--from', none],
      ['copy', 'f', '--to', foreign],
      ['import', none],
    ]) {
      const { status, stderr } = await world.run(args);
      assert.ok(status === 1 || status === 3, stderr);
      assert.doesNotMatch(stderr, /--store/, args.join(' '));
    }
  });

  it('inside the store is refused as a target of export and copy, through a link too', async () => {
    const link = join(world.dir, 'link');
    symlinkSync(world.store, link);
    for (const dir of [join(world.store, 'e'), join(link, 'packs/e'), world.store]) {
      const { message } = await world.fails(2, 'USAGE', ['export', 'f', dir], true);
      assert.match(message, /is inside the store/);
      assert.equal(existsSync(`${dir}.partial`), false);
    }
    await world.fails(2, 'USAGE', ['copy', 'f', '--to', join(link, 'packs/e')], true);
    assert.equal((await world.json<{ problems: unknown[] }>('check')).problems.length, 0);
    await world.json('export', 'f', `${world.store}-beside`);
  });

  it('that is not UTF-8 is refused as a directory', async () => {
    const bad = Buffer.from(`${world.dir}/b\xffd`, 'latin1');
    /** Runs livesnap by a shell, since Node passes only UTF-8 on. `$D` is the name. */
    const shell = (command: string) =>
      ending(
        spawn(
          'sh',
          ['-c', `D=$(printf '%s/b\\377d' "$0"); L="$1 $2"; ${command}`, world.dir, process.execPath, MAIN],
          {
            env: world.env,
          },
        ),
      );
    for (const command of [
      '$L ls --store "$D"',
      '$L ls --store="$D"',
      'LIVESNAP_STORE="$D" $L put "$0/file"',
      '$L export f "$D"',
      '$L copy f --to "$D"',
      '$L import "$D"',
    ]) {
      const { status, stderr } = await shell(command);
      assert.equal(status, 2, `${command}: ${stderr}`);
      assert.match(stderr, /is not valid UTF-8/);
    }
    assert.equal(existsSync(bad), false);
    assert.equal(existsSync(join(world.dir, 'b\ufffdd')), false);
    await world.json('export', 'f', join(world.dir, 'really\ufffd'));
  });
});
