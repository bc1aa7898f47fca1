/** Copies through the command line: directories, addresses, output. ssh: copy-ssh.test.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../src/host/index.js';
import { noise, textPages } from '../store/scratch.js';
import { MAIN, World } from './cli.js';
import { type Copied, contents, put } from './stored-files.js';

const COPY_KEYS = ['sentBytes', 'sentChunks', 'presentChunks', 'skippedTags'];

describe('livesnap copy', function () {
  this.timeout(180_000);
  let world: World;
  beforeEach(() => {
    world = new World();
  });
  afterEach(() => world.end());

  it('sends only what the destination lacks, to and from a directory', async () => {
    const bytes = Buffer.concat([noise(1, 200), textPages(2, 100)]);
    const id = await put(world, 'a', bytes);
    const other = join(world.dir, 'other');
    const first = await world.json<Copied>('copy', 'a', '--to', other);
    assert.deepEqual(Object.keys(first), COPY_KEYS);
    assert.equal(first.sentChunks, 300);
    assert.deepEqual(await world.json('copy', id.slice(0, 10), '--to', other), {
      ...{ sentBytes: 0, sentChunks: 0, presentChunks: 0, skippedTags: [] },
    });
    await put(world, 'b', Buffer.concat([bytes, noise(3, 7)]));
    const ran = await world.run(['copy', 'a', 'b', '--to', other]);
    assert.match(ran.stderr, /is already there\n.*: 7 of 307 chunks to send, 28 KiB/);
    const third = join(world.dir, 'third');
    await world.json('copy', 'b', '--from', other, '--store', third);
    assert.deepEqual(await contents(world, third, 'b'), Buffer.concat([bytes, noise(3, 7)]));

    await world.fails(2, 'USAGE', ['copy', 'a']);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', other, '--from', other]);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', world.store]);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'ftp://host/dir']);
    await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'http://127.0.0.1/']);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--to', other]);
    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--from', other]);
    await world.fails(3, 'NO_SUCH_FILE', ['copy', 'a', '--from', join(world.dir, 'nowhere')]);
    await world.fails(1, 'REMOTE_FAILED', ['copy', 'a', '--from', 'http://127.0.0.1:9/x']);
  });

  it('refuses scp-style and unknown addresses, and creates nothing', async () => {
    await put(world, 'a', noise(1, 4));
    const before = readdirSync('.');
    const scp = 'me@host:/srv/store';
    const errors = await Promise.all(
      ['--to', '--from'].map((option) => world.fails(2, 'USAGE', ['copy', 'a', option, scp], true)),
    );
    for (const { message, hint } of errors) {
      assert.match(message, /scp-style/);
      assert.match(hint, /^Write ssh:\/\/me@host\/srv\/store/);
    }
    await Promise.all([
      world.fails(2, 'USAGE', ['export', 'a', scp], true),
      world.fails(2, 'USAGE', ['import', scp], true),
      world.fails(2, 'USAGE', ['put', MAIN, '--store', scp], true),
      world.fails(2, 'USAGE', ['export', 'a', 's3://bucket'], true),
      world.fails(2, 'USAGE', ['ls', '--store', 'ssh://host/dir'], true),
    ]);
    const restic = await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'sftp:host:/dir'], true);
    assert.match(restic.hint, /ssh:\/\/host\/dir/);
    await assert.rejects(connect({ store: 'ssh://host/dir' }), /is an address, not a directory/);
    const { message, hint } = await world.fails(2, 'USAGE', ['copy', 'a', '--to', 'sftp://host/dir'], true);
    assert.match(message, /unsupported address scheme sftp:\/\//);
    for (const known of ['ssh://', 'http://', 'https://']) assert.ok(hint.includes(known), hint);
    assert.deepEqual(readdirSync('.'), before);
  });

  it('shows a progress bar with the total on a terminal, below its messages', async () => {
    await put(world, 'a', noise(1, 512));
    const other = join(world.dir, 'other');
    const exported = join(world.dir, 'exported');
    const fresh = (name: string): string[] => ['--store', join(world.dir, name)];
    for (const [label, args] of [
      ['copying', ['copy', 'a', '--to', other]],
      ['copying', ['copy', 'a', '--from', other, ...fresh('x')]],
      ['exporting', ['export', 'a', exported]],
      ['importing', ['import', exported, ...fresh('y')]],
    ] as const) {
      const shown = onTerminal(world.env, args);
      assert.match(shown, new RegExp(`${label} █+ 2 MiB of 2 MiB`), args.join(' '));
      // The bar is cleared for the message and drawn again below it.
      assert.match(
        shown,
        /␛\[2K[0-9a-f]{12}: 512 of 512 chunks to send, 2 MiB before compression\r\n␛7/,
        args.join(' '),
      );
    }
    for (const quiet of ['--quiet', '--json'])
      assert.doesNotMatch(onTerminal(world.env, ['copy', 'a', '--to', other, quiet]), /chunks to send/);
    assert.doesNotMatch(onTerminal(world.env, ['export', 'a', join(world.dir, 'z'), '--quiet']), /exporting/);
  });

  it('shows control characters from the remote as text', async () => {
    await put(world, 'a', noise(1, 4));
    const bin = join(world.dir, 'bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'ssh'), "#!/bin/sh\nprintf 'a\\033]0;x\\007b\\n' >&2\nexit 255\n", {
      mode: 0o755,
    });
    world.env.PATH = `${bin}:${process.env.PATH}`;
    const ran = await world.run(['copy', 'a', '--to', 'ssh://host/dir']);
    assert.equal(ran.status, 1);
    assert.match(ran.stderr, /^livesnap: ssh could not reach host: a\\x1b\]0;x\\x07b\n/);
    const json = await world.run(['copy', 'a', '--to', 'ssh://host/dir', '--json', '--quiet']);
    assert.match(JSON.parse(json.stdout).error.message, /could not reach host: a/);
    assert.equal(json.stderr, '');
  });
});

/** Runs livesnap on a terminal. Returns its output, with ␛ in place of escape characters. */
function onTerminal(env: NodeJS.ProcessEnv, args: readonly string[]): string {
  const quoted = [process.execPath, MAIN, ...args].map((word) => `'${word}'`).join(' ');
  return execFileSync('script', ['-qec', quoted, '/dev/null'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
    .toString()
    .replaceAll('\x1b', '␛')
    .replaceAll('␛[0K', '');
}
