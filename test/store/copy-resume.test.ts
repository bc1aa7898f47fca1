/** Copies that are interrupted: what is kept, and how the next attempt resumes. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LivesnapError } from '../../src/errors.js';
import { type Channel, localChannels } from '../../src/store/copy/channel.js';
import type { CopyPlan } from '../../src/store/copy/copy-result.js';
import { MessageType } from '../../src/store/copy/protocol.js';
import { requestCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { Store } from '../../src/store/store.js';
import {
  changing,
  copy,
  cuttableChannels,
  requireEqual,
  requireSound,
  silent,
  smallDisk,
} from './copying.js';
import { dropScratch, newStore, noise, onDrop, save, seeded } from './scratch.js';

describe('an interrupted copy', () => {
  afterEach(function () {
    dropScratch(this);
  });

  it('resumes where it stopped, whatever byte was the last', async function () {
    this.timeout(120_000);
    const { store: here } = newStore(this);
    // Long enough for two checkpoints.
    const contents = { 'ram@0x0': noise(5, 20_000) };
    const { id } = await save(here, contents, { tag: 'big' });
    const { store: there } = newStore(this);
    const next = seeded(3);
    let missing = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 6; round++) {
      const cutAfter = 30_000_000 + (next() % 25_000_000);
      let sends = 0;
      const [client, server] = cuttableChannels(cutAfter);
      const served = serveCopies(server, () => there, { compress: false });
      served.catch(() => {});
      const done = await requestCopies(client, here, 'to', ['big'], {
        ...silent,
        compress: true,
        onPlan: ({ sendChunks }) => {
          sends = sendChunks;
        },
      }).then(
        () => true,
        (error: LivesnapError) => {
          assert.equal(error.code, 'REMOTE_FAILED', error.stack);
          return false;
        },
      );
      await served.catch(() => {});
      assert.ok(sends < missing || (done && sends <= missing), `${sends} of ${missing}`);
      missing = sends;
      if (done) break;
      assert.deepEqual(there.list(), []);
    }
    await requireEqual(here, there, id);
    await requireSound(there);
  });

  for (const direction of ['to', 'from'] as const)
    it(`keeps only the pages that arrived before the source failed (${direction} a directory)`, async function () {
      const { store: here, dir } = newStore(this);
      await save(here, { x: noise(6, 9000) }, { tag: 'a' });
      const { store: there, dir: other } = newStore(this);
      const [from, to] = [direction === 'to' ? dir : other, direction === 'to' ? other : dir];
      if (direction === 'from')
        await copySnapshots({ ...silent, storeDir: dir, direction: 'to', remote: other, refs: ['a'] });
      const source = direction === 'to' ? here : there;
      const destination = direction === 'to' ? there : here;
      if (direction === 'from') {
        here.remove(['a']);
        await here.gc({ dryRun: false });
      }
      const pack = join(from, 'packs', readdirSync(join(from, 'packs')).sort()[0]!);
      const bytes = readFileSync(pack);
      const late = Math.floor(bytes.length * 0.97);
      bytes[late]! ^= 1;
      const flip = (): void => writeFileSync(pack, bytes);
      // The plan is reported before pages are sent.
      const attempt = (): Promise<{ plans: CopyPlan[] }> => copy(dir, direction, other, ['a']);
      flip();
      await assert.rejects(attempt(), { code: 'DAMAGED' });
      assert.deepEqual(destination.list(), []);
      const kept = readdirSync(join(to, 'packs'));
      const { problems } = await destination.check({ readData: true });
      assert.deepEqual(problems, []);
      const { packs } = destination.stats();
      assert.equal(kept.length, packs, 'every pack is sealed and listed');
      await assert.rejects(attempt(), { code: 'DAMAGED' });
      assert.ok(readdirSync(join(to, 'packs')).length <= packs + 1, 'each attempt adds at most one pack');
      bytes[late]! ^= 1;
      flip();
      const { plans } = await attempt();
      assert.ok(plans[0]!.sendChunks < 1000, `${plans[0]!.sendChunks} chunks were still to send`);
      await requireEqual(source, destination, 'a');
    });

  it('stops reading the source when the disk of the destination is full', async function () {
    const { store: here } = newStore(this);
    await save(here, { x: noise(6, 9000) }, { tag: 'a' });
    const there = Store.open(smallDisk(this, 12 << 20), { write: true, create: true });
    onDrop(this, () => there.close());
    const [client, server] = localChannels();
    let sent = 0;
    const counting: Channel = {
      ...changing(client, MessageType.done, (bytes) => bytes),
      send: async (type, ...parts) => {
        await client.send(type, ...parts);
        if (type === MessageType.pages) sent += 16;
      },
    };
    const served = serveCopies(server, () => there, { compress: false });
    served.catch(() => {});
    await assert.rejects(requestCopies(counting, here, 'to', ['a'], { ...silent, compress: false }), {
      code: 'NO_SPACE',
      message: /^remote: .*full/,
    });
    assert.ok(sent < 4000, `${sent} pages were sent`);
    await assert.rejects(served, { code: 'NO_SPACE' });
  });

  it('leaves chunks that gc reclaims', async function () {
    const { store: here } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 9000) });
    const [client, server] = cuttableChannels(36_000_000);
    const served = serveCopies(server, () => there, { compress: false }).catch(() => {});
    await assert.rejects(requestCopies(client, here, 'to', [id], { ...silent, compress: false }));
    await served;
    assert.ok(there.stats().deadBytes > 30_000_000);
    await there.gc({ dryRun: false });
    assert.deepEqual(readdirSync(join(other, 'packs')), []);
  });
});
