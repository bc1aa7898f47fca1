/** Copies over ssh through the command line, with a real sshd on loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { flipBit, noise, textPages } from '../store/scratch.js';
import { MAIN, World } from './cli.js';
import { missingForSsh, SshServer } from './ssh-server.js';
import { type Copied, contents, put } from './stored-files.js';

interface CopiedAll extends Copied {
  readonly copied: string[];
  readonly alreadyThere: string[];
  readonly failed: { readonly id: string }[];
  readonly notTried: string[];
}

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
    const unreachable = await world.run(['copy', 'a', '--to', 'ssh://127.0.0.1:9/x']);
    assert.equal(unreachable.status, 1);
    assert.match(unreachable.stderr, /^livesnap: ssh could not reach 127.0.0.1: .*Connection refused\s*\n/);
    world.env.LIVESNAP_REMOTE_COMMAND = 'no-such-livesnap';
    const missing = await world.run(['copy', 'a', '--to', address, '--json']);
    assert.match(JSON.parse(missing.stdout).error.message, /livesnap was not found on 127.0.0.1/);
  });

  it('copies all snapshots to a second store, from which damage of the first is healed', async () => {
    const shared = noise(20, 300);
    const files = new Map<string, Buffer>();
    for (let i = 0; i < 12; i++) files.set(`file-${i}`, Buffer.concat([shared, noise(30 + i, 5)]));
    const ids: string[] = [];
    for (const [name, bytes] of files) ids.push(await put(world, name, bytes));
    const there = join(world.dir, 'there');
    const address = `ssh://127.0.0.1:${server!.port}${there}`;
    const some = await world.json<CopiedAll>('copy', '--all', '--filter', 'tag=file-?', '--to', address);
    assert.deepEqual(some.copied, ids.slice(0, 10));
    assert.equal(some.sentChunks, 300 + 10 * 5);
    const all = await world.json<CopiedAll>('copy', '--all', '--to', address);
    assert.deepEqual([all.copied, all.alreadyThere], [ids.slice(10), ids.slice(0, 10)]);
    assert.deepEqual([all.failed, all.notTried], [[], []]);
    assert.deepEqual(await contents(world, there, 'file-11'), files.get('file-11'));

    // A flipped bit in the pages that all share.
    flipBit(join(world.store, 'packs', readdirSync(join(world.store, 'packs')).sort()[0]!), 40_000);
    const checked = await world.run(['check', '--read-data', '--json']);
    assert.equal(checked.status, 4);
    const { problems } = JSON.parse(checked.stdout) as { problems: { snapshots: string[] }[] };
    assert.deepEqual([...new Set(problems.flatMap(({ snapshots }) => snapshots))].sort(), [...ids].sort());
    assert.notEqual((await world.run(['get', 'file-3', join(world.dir, 'damaged')])).status, 0);

    // One of them is removed and copied back. Its pages heal those of the others.
    await world.json('rm', 'file-5');
    const back = await world.json<CopiedAll>('copy', '--all', '--from', address);
    assert.deepEqual([back.copied, back.alreadyThere.length], [[ids[5]], 11]);
    assert.ok(back.sentChunks > 0 && back.sentChunks <= 16 + 5, `${back.sentChunks} chunks were sent`);
    const repaired = await world.json<{ healedChunks: number; lost: unknown[] }>('repair');
    assert.ok(repaired.healedChunks > 0);
    assert.deepEqual(repaired.lost, []);
    assert.deepEqual(await world.json('check', '--read-data'), { ok: true, problems: [] });
    for (const [name, bytes] of files) assert.deepEqual(await contents(world, world.store, name), bytes);
  });

  it('names a snapshot that cannot be copied, and copies the others', async () => {
    const ids = [await put(world, 'a', noise(1, 20)), await put(world, 'b', noise(2, 20))];
    truncateSync(join(world.store, 'snapshots', ids[0]!), 50);
    const there = join(world.dir, 'there');
    const ran = await world.run(['copy', '--all', '--to', `ssh://127.0.0.1:${server!.port}${there}`]);
    assert.equal(ran.status, 4, ran.stderr);
    assert.match(ran.stdout, /^Copied 1 snapshot; 0 already there; 1 failed$/m);
    assert.match(ran.stderr, new RegExp(`^${ids[0]!.slice(0, 12)} was not copied: .* is damaged`, 'm'));
    assert.deepEqual(await contents(world, there, 'b'), noise(2, 20));
    const from = `ssh://127.0.0.1:${server!.port}${world.store}`;
    const again = await world.run(['copy', '--all', '--json', '--from', from, '--store', there]);
    assert.equal(again.status, 4);
    const { copied, alreadyThere, failed } = JSON.parse(again.stdout) as CopiedAll;
    assert.deepEqual([copied, alreadyThere, failed.map(({ id }) => id)], [[], [ids[1]], [ids[0]]]);
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
