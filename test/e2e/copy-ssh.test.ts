/** Copies over ssh through the command line, with a real sshd on loopback. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { noise, textPages } from '../store/scratch.js';
import { MAIN, World } from './cli.js';
import { freePort } from './free-port.js';
import { type Copied, contents, put } from './stored-files.js';

describe('livesnap copy over ssh', function () {
  this.timeout(180_000);
  let world: World;
  let sshd: ChildProcess | null = null;
  let dir: string;
  let port: number;

  before(async function () {
    if (!existsSync('/usr/sbin/sshd') || process.getuid?.() !== 0) {
      process.stderr.write('    SKIPPED, not tested: copies over ssh need root and openssh-server\n');
      this.skip();
    }
    dir = mkdtempSync(join(tmpdir(), 'livesnap-ssh-'));
    for (const key of ['host', 'user'])
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, key)]);
    cpSync(join(dir, 'user.pub'), join(dir, 'authorized'));
    port = await freePort();
    writeFileSync(
      join(dir, 'sshd.conf'),
      [
        ...[`Port ${port}`, 'ListenAddress 127.0.0.1', `HostKey ${join(dir, 'host')}`],
        ...[`AuthorizedKeysFile ${join(dir, 'authorized')}`, 'StrictModes no', 'UsePAM no'],
        ...['PasswordAuthentication no', 'PermitRootLogin yes', 'PidFile none', ''],
      ].join('\n'),
    );
    writeFileSync(
      join(dir, 'ssh.conf'),
      [
        ...['Host *', `IdentityFile ${join(dir, 'user')}`, 'StrictHostKeyChecking no'],
        ...[`UserKnownHostsFile ${join(dir, 'known')}`, 'LogLevel ERROR', 'BatchMode yes', ''],
      ].join('\n'),
    );
    // In place of ~/.ssh/config.
    mkdirSync(join(dir, 'bin'));
    writeFileSync(join(dir, 'bin/ssh'), `#!/bin/sh\nexec /usr/bin/ssh -F ${join(dir, 'ssh.conf')} "$@"\n`);
    chmodSync(join(dir, 'bin/ssh'), 0o755);
    mkdirSync('/run/sshd', { recursive: true });
    sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', join(dir, 'sshd.conf')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    for await (const part of sshd.stderr!) {
      log += part;
      if (log.includes('Server listening')) break;
    }
    assert.match(log, /Server listening/);
  });

  beforeEach(() => {
    world = new World();
    world.env.PATH = `${join(dir, 'bin')}:${process.env.PATH}`;
    world.env.LIVESNAP_REMOTE_COMMAND = `'${process.execPath}' '${MAIN}'`;
  });
  afterEach(() => world.end());

  after(async () => {
    if (sshd) {
      const gone = once(sshd, 'exit');
      sshd.kill();
      await gone;
    }
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  it('copies to a store on the host and back, and reports the cause of a failure', async () => {
    const bytes = Buffer.concat([textPages(1, 500), noise(2, 500)]);
    await put(world, 'a', bytes);
    const there = join(world.dir, "a store's dir");
    const address = `ssh://127.0.0.1:${port}${encodeURI(there)}`;
    const sent = await world.json<Copied>('copy', 'a', '--to', address);
    assert.equal(sent.sentChunks, 1000);
    assert.ok(sent.sentBytes < 1000 * 4096, 'pages are compressed');
    assert.deepEqual(await contents(world, there, 'a'), bytes);
    assert.equal((await world.json<Copied>('copy', 'a', '--to', address)).sentChunks, 0);
    const back = join(world.dir, 'back');
    assert.equal(
      (await world.json<Copied>('copy', 'a', '--from', address, '--store', back)).sentChunks,
      1000,
    );
    assert.deepEqual(await contents(world, back, 'a'), bytes);

    await world.fails(3, 'NO_SUCH_SNAPSHOT', ['copy', 'none', '--from', address]);
    await world.fails(3, 'NO_SUCH_FILE', ['copy', 'a', '--from', `ssh://127.0.0.1:${port}/nowhere`]);
    // The message of ssh comes first.
    const unreachable = await world.run(['copy', 'a', '--to', 'ssh://127.0.0.1:9/x']);
    assert.equal(unreachable.status, 1);
    assert.match(unreachable.stderr, /Connection refused[\s\S]*livesnap: ssh could not reach 127.0.0.1/);
    world.env.LIVESNAP_REMOTE_COMMAND = 'no-such-livesnap';
    const missing = await world.run(['copy', 'a', '--to', address, '--json']);
    assert.match(JSON.parse(missing.stdout).error.message, /livesnap was not found on 127.0.0.1/);
  });

  it('resumes after the client was killed', async () => {
    const bytes = noise(5, 30_000);
    await put(world, 'big', bytes);
    const there = join(world.dir, 'there');
    const address = `ssh://127.0.0.1:${port}${there}`;
    for (let round = 0; round < 2; round++) {
      const child = world.spawn('copy', 'big', '--to', address);
      const packs = join(there, 'packs');
      // The first pack is committed when the second one begins.
      while (!existsSync(packs) || readdirSync(packs).length < 2 + round)
        await new Promise((resolve) => setTimeout(resolve, 10));
      child.kill('SIGKILL');
      await once(child, 'close');
    }
    const { sentChunks, presentChunks } = await world.json<Copied>('copy', 'big', '--to', address);
    assert.ok(presentChunks >= 8192, `${presentChunks} chunks had arrived`);
    assert.equal(sentChunks + presentChunks, 30_000);
    assert.deepEqual(await contents(world, there, 'big'), bytes);
  });
});
