/** Copies over ssh through the command line, with a real sshd on loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { noise, textPages } from '../store/scratch.js';
import { MAIN, World } from './cli.js';
import { missingForSsh, SshServer } from './ssh-server.js';
import { type Copied, contents, put } from './stored-files.js';

describe('livesnap copy over ssh', function () {
  this.timeout(180_000);
  let world: World;
  let server: SshServer | null = null;

  before(async function () {
    const missing = missingForSsh();
    if (missing !== null) {
      process.stderr.write(`    SKIPPED, not tested: ${missing}\n`);
      this.skip();
    }
    server = await SshServer.start();
  });

  beforeEach(() => {
    world = new World();
    world.env.PATH = `${server!.binDir}:${process.env.PATH}`;
    world.env.LIVESNAP_REMOTE_COMMAND = `'${process.execPath}' '${MAIN}'`;
  });
  afterEach(() => world.end());

  after(() => server?.end());

  it('copies to a store on the host and back, and reports the cause of a failure', async () => {
    const bytes = Buffer.concat([textPages(1, 500), noise(2, 500)]);
    await put(world, 'a', bytes);
    const there = join(world.dir, "a store's dir");
    const address = `ssh://127.0.0.1:${server!.port}${encodeURI(there)}`;
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
    await world.fails(3, 'NO_SUCH_FILE', ['copy', 'a', '--from', `ssh://127.0.0.1:${server!.port}/nowhere`]);
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
    const address = `ssh://127.0.0.1:${server!.port}${there}`;
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
