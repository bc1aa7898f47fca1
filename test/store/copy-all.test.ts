/** Copies of all snapshots of a store: between directories, over a channel, from a web server. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { chooseSnapshots, parseSnapshotFilter } from '../../src/host/snapshot-filter.js';
import { localChannels } from '../../src/store/copy/channel.js';
import { encodeError, MessageType, protocolError } from '../../src/store/copy/protocol.js';
import { requestCopies } from '../../src/store/copy/sessions.js';
import { type CopyAllRequest, type CopyAllResult, copyAll } from '../../src/store/remote/copy-all.js';
import { Store } from '../../src/store/store.js';
import { requireEqual, requireSound, silent, smallDisk } from './copying.js';
import { dropScratch, newStore, noise, onDrop, save, scratchDir } from './scratch.js';
import { serve } from './web-server.js';

const RAM = noise(1, 40);

/** Copies, and returns the order in which snapshots were planned as well. */
async function all(
  request: Pick<CopyAllRequest, 'storeDir' | 'direction' | 'remote'> & Partial<CopyAllRequest>,
): Promise<CopyAllResult & { plans: string[] }> {
  const plans: string[] = [];
  const result = await copyAll({
    ...silent,
    choose: (found) => found,
    ...request,
    onPlan: ({ id }) => void plans.push(id),
  });
  return { ...result, plans };
}

/** A chain of three snapshots, of which each changes four pages, and an untagged one. */
async function chain(store: Store): Promise<string[]> {
  const ids: string[] = [];
  const ram = Buffer.from(RAM);
  for (let i = 0; i < 3; i++) {
    noise(10 + i, 4).copy(ram, i * 4 * 4096);
    const parent = ids.at(-1) ?? null;
    ids.push((await save(store, { x: Buffer.from(ram) }, { parent, tags: [`step-${i}`, `t${i}`] })).id);
  }
  ids.push((await save(store, { x: noise(50, 5) })).id);
  return ids;
}

function open(context: Mocha.Context, dir: string): Store {
  const store = Store.open(dir, { write: true });
  onDrop(context, () => store.close());
  return store;
}

const listing = (names: readonly string[]): string =>
  `<html><a href="../">..</a>${names.map((name) => `<a href="${encodeURIComponent(name)}">${name.slice(0, 9)}..</a>`).join('\n')}
   <a href='/etc/passwd'>x</a><a href="%">y</a><a href="${'f'.repeat(32)}">gone</a></html>`;

describe('a copy of all snapshots', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const direction of ['to', 'from', 'http'] as const)
    it(`copies parents first with all tags, and skips what is there (${direction})`, async function () {
      const { store: there, dir: source } = newStore(this);
      const ids = await chain(there);
      const destination = join(scratchDir(this), 'other');
      const { address } = await serve(this, source, { listing });
      const request =
        direction === 'to'
          ? ({ storeDir: source, direction, remote: destination } as const)
          : ({
              storeDir: destination,
              direction: 'from',
              remote: direction === 'from' ? source : address,
            } as const);
      const first = await all(request);
      assert.deepEqual(first.plans, ids);
      assert.deepEqual(
        first.results.map(({ id }) => id),
        ids,
      );
      assert.deepEqual(
        first.results.map(({ sentChunks }) => sentChunks),
        [40, 4, 4, 5],
      );
      assert.ok(first.results.every(({ sentBytes }) => sentBytes >= 4 * 4096));
      assert.deepEqual([first.alreadyThere, first.failed, first.notTried], [[], [], []]);
      const here = open(this, destination);
      for (const id of ids) await requireEqual(here, there, id);
      assert.deepEqual(
        here.list().map(({ tags }) => tags),
        there.list().map(({ tags }) => tags),
      );
      here.remove([ids[1]!]);
      const later = await save(there, { x: noise(51, 2) });
      const again = await all(request);
      assert.deepEqual(again.alreadyThere.toSorted(), [ids[0]!, ids[2]!, ids[3]!].sort());
      assert.deepEqual(
        again.results.flatMap(({ id, sentChunks }) => (sentChunks > 0 ? [id] : [])),
        [later.id],
      );
      assert.deepEqual(
        here.list().map(({ id }) => id),
        [...ids, later.id],
      );
      await requireSound(here);
    });

  it('copies only what the filters choose', async function () {
    const { store: there, dir } = newStore(this);
    const ids = await chain(there);
    const remote = join(scratchDir(this), 'other');
    const filters = ['tag=step-2', 'tag=t0'].map(parseSnapshotFilter);
    const { plans } = await all({
      ...{ storeDir: dir, direction: 'to', remote },
      choose: (found) => chooseSnapshots(found, { filters }),
    });
    assert.deepEqual(plans, [ids[0], ids[2]]);
    const none = await all({ storeDir: dir, direction: 'to', remote, choose: () => [] });
    assert.deepEqual([none.results, none.failed], [[], []]);
  });

  for (const direction of ['to', 'from', 'http'] as const)
    it(`copies the others if some are damaged (${direction})`, async function () {
      const { store: there, dir: source } = newStore(this);
      const ids = await chain(there);
      truncateSync(join(source, 'snapshots', ids[0]!), 100);
      const pack = join(source, 'packs', readdirSync(join(source, 'packs')).sort().at(-1)!);
      const bytes = readFileSync(pack);
      bytes[200]! ^= 1;
      writeFileSync(pack, bytes);
      const destination = join(scratchDir(this), 'other');
      const { address } = await serve(this, source, { listing });
      const result = await all(
        direction === 'to'
          ? { storeDir: source, direction, remote: destination }
          : { storeDir: destination, direction: 'from', remote: direction === 'from' ? source : address },
      );
      assert.deepEqual(
        result.failed.map(({ id, error }) => [id, error.code]),
        [
          [ids[0], 'DAMAGED'],
          [ids[3], 'DAMAGED'],
        ],
      );
      assert.deepEqual(
        result.results.map(({ id }) => id),
        [ids[1], ids[2]],
      );
      assert.deepEqual(result.notTried, []);
      const here = open(this, destination);
      await requireEqual(here, there, ids[2]!);
      await requireSound(here);
    });

  it('ends when the destination is full, and copies the rest later', async function () {
    const { store: there, dir: source } = newStore(this);
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push((await save(there, { x: noise(i, i === 1 ? 4000 : 20) })).id);
    const small = smallDisk(this, 12 << 20);
    const full = await all({ storeDir: source, direction: 'to', remote: small });
    assert.deepEqual(
      full.results.map(({ id }) => id),
      [ids[0]],
    );
    assert.deepEqual(
      full.failed.map(({ id, error }) => [id, error.code]),
      [[ids[1], 'NO_SPACE']],
    );
    assert.deepEqual(full.notTried, [ids[2]]);
    there.remove([ids[1]!]);
    const rest = await all({ storeDir: source, direction: 'to', remote: small });
    assert.deepEqual([rest.alreadyThere, rest.results.map(({ id }) => id)], [[ids[0]], [ids[0], ids[2]]]);
  });

  it('gives up when two snapshots in a row lose the connection', async function () {
    const { store: there, dir: source } = newStore(this);
    const ids = await chain(there);
    const { address } = await serve(this, source, {
      listing,
      spoil: (path, response) => {
        if (path.startsWith('packs/')) response.destroy();
        return path.startsWith('packs/');
      },
    });
    const result = await all({
      storeDir: join(scratchDir(this), 'other'),
      direction: 'from',
      remote: address,
    });
    assert.deepEqual(
      result.failed.map(({ id, error }) => [id, error.code]),
      [
        [ids[0], 'REMOTE_FAILED'],
        [ids[1], 'REMOTE_FAILED'],
      ],
    );
    assert.deepEqual(result.notTried, ids.slice(2));
  });

  it('fails at once if the source cannot be opened or listed', async function () {
    const { dir: source, store } = newStore(this);
    await save(store, { x: RAM });
    const storeDir = join(scratchDir(this), 'other');
    await assert.rejects(all({ storeDir, direction: 'from', remote: '/no/such/store' }), {
      code: 'NO_SUCH_FILE',
    });
    const { address } = await serve(this, source);
    await assert.rejects(all({ storeDir, direction: 'from', remote: address }), {
      code: 'REMOTE_FAILED',
      message: `remote: ${address} does not list its files`,
      hint: /directory listings/,
    });
    const long = await serve(this, source, { listing: () => 'x'.repeat(33 << 20) });
    await assert.rejects(all({ storeDir, direction: 'from', remote: long.address }), { message: /too long/ });
  });

  it('says so if an earlier livesnap cannot list its snapshots', async function () {
    const { store } = newStore(this);
    const [client, server] = localChannels();
    const serving = (async () => {
      const hello = await server.receive(MessageType.hello);
      await server.send(MessageType.hello, hello.bytes);
      await server.receive(MessageType.request);
      await server.send(
        MessageType.error,
        encodeError(protocolError('sent an invalid request: verb is not known')),
      );
    })();
    await assert.rejects(
      requestCopies(client, store, 'from', () => assert.fail(), { ...silent, compress: false }),
      {
        code: 'REMOTE_FAILED',
        message: 'the livesnap of the remote is too old to list its snapshots',
      },
    );
    await serving;
  });

  it('copies nothing that a hostile list names', async function () {
    const { store: there, dir: source } = newStore(this);
    const ids = await chain(there);
    // One of the files has the name of another snapshot.
    const swapped = await serve(this, source, {
      listing,
      spoil: (path, response) => {
        if (path !== `snapshots/${ids[1]}`) return false;
        response.end(readFileSync(join(source, 'snapshots', ids[3]!)));
        return true;
      },
    });
    const storeDir = join(scratchDir(this), 'other');
    const { failed, results } = await all({ storeDir, direction: 'from', remote: swapped.address });
    assert.deepEqual(
      failed.map(({ id, error }) => [id, error.code]),
      [[ids[1], 'DAMAGED']],
    );
    assert.deepEqual(
      results.map(({ id }) => id),
      [ids[0], ids[2], ids[3]],
    );
    await requireSound(open(this, storeDir));
  });
});
