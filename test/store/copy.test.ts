/** Copies between stores of one machine: what is sent, tags, concurrent work, damage. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Channel, localChannels } from '../../src/store/copy/channel.js';
import { MessageType } from '../../src/store/copy/protocol.js';
import { requestCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { createLocked } from '../../src/store/disk/file-locks.js';
import { Index } from '../../src/store/index/index-database.js';
import { BlockList } from '../../src/store/snapshot/block-list.js';
import { readSnapshotFile, snapshotFile, writeSnapshotFile } from '../../src/store/snapshot/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import { changing, copy, offerOf, RAM, requireEqual, requireSound, silent } from './copying.js';
import { dropScratch, load, newStore, noise, onDrop, save, scratchDir, textPages } from './scratch.js';

describe('a copy between two stores', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const bits of [64, 4])
    it(`sends each missing chunk once, to and from a directory (fingerprints of ${bits} bits)`, async function () {
      const { store: here, dir } = newStore(this, bits);
      const { store: there, dir: other } = newStore(this, bits);
      const a = await save(here, { 'ram@0x0': RAM, disk: textPages(7, 30) }, { tag: 'a' });
      const changed = Buffer.from(RAM);
      noise(3, 10).copy(changed, 4096 * 5);
      const pages = Array.from({ length: 10 }, (_, i) => 5 + i);
      const only = { 'ram@0x0': pages, disk: [] };
      const b = await save(
        here,
        { 'ram@0x0': changed, disk: textPages(7, 30) },
        { parent: a.id, only, tag: 'b' },
      );
      // Some pages are already there, in another order, in another snapshot.
      await save(there, { x: Buffer.concat([noise(9, 3), RAM.subarray(0, 100 * 4096)]) });

      const { results, plans } = await copy(dir, 'to', other, ['a'], bits);
      // Of many chunks with the same fingerprint only some are compared.
      const presentChunks = bits === 64 ? 100 : plans[0]!.presentChunks;
      const sendChunks = 930 - presentChunks;
      assert.ok(presentChunks > 0);
      assert.deepEqual(plans, [{ id: a.id, alreadyThere: false, sendChunks, presentChunks }]);
      assert.deepEqual(
        results.map(({ sentBytes, ...rest }) => rest),
        [{ id: a.id, sentChunks: sendChunks, presentChunks, skippedTags: [] }],
      );
      await requireEqual(here, there, 'a');
      const second = await copy(dir, 'to', other, ['a', 'b'], bits);
      assert.deepEqual(
        second.plans.map(({ alreadyThere }) => alreadyThere),
        [true, false],
      );
      if (bits === 64) assert.equal(second.plans[1]!.sendChunks, 10);
      await requireEqual(here, there, b.id);
      await requireSound(there);
      assert.equal(there.stats().deadBytes, 0);

      // Back again, into a store that the copy creates.
      const third = join(scratchDir(this), 'made');
      await copy(third, 'from', other, ['a', b.id.slice(0, 12)], bits);
      const made = Store.open(third, { write: true, fingerprintBits: bits });
      onDrop(this, () => made.close());
      await requireEqual(here, made, 'a');
      await requireEqual(here, made, 'b');
      await requireSound(made);
      await assert.rejects(copy(third, 'from', other, ['none'], bits), {
        code: 'NO_SUCH_SNAPSHOT',
        message: `no snapshot "none" in ${other}`,
      });
    });

  it('does not move a tag that names another snapshot at the destination', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) }, { tag: 'same' });
    const theirs = await save(there, { x: noise(2, 3) }, { tag: 'same' });
    const { results } = await copy(dir, 'to', other, ['same']);
    assert.deepEqual(results[0]!.skippedTags, ['same']);
    assert.equal(there.resolve('same'), theirs.id);
    assert.deepEqual(there.find(mine.id).tags, []);
  });

  it('does not move a tag that is set just before the commit, and reports it', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) }, { tag: 'same' });
    const theirs = await save(there, { x: noise(2, 3) });
    const { commitSave } = Index.prototype;
    onDrop(this, () => {
      Index.prototype.commitSave = commitSave;
    });
    Index.prototype.commitSave = function (...save) {
      there.addTags(theirs.id, ['same']);
      return commitSave.apply(this, save);
    };
    const { results } = await copy(dir, 'to', other, ['same']);
    assert.deepEqual(results[0]!.skippedTags, ['same']);
    assert.equal(there.resolve('same'), theirs.id);
    assert.deepEqual(there.find(mine.id).tags, []);
    assert.equal(readFileSync(join(other, 'tags/same'), 'latin1'), `${theirs.id}\n`);
    await requireSound(there);
  });

  it('drops a tag that looks like the ID of another snapshot', async function () {
    const { store: here } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) });
    const { store: there } = newStore(this);
    const theirs = await save(there, { x: noise(2, 3) }, { tag: 'theirs' });
    const tag = mine.id;
    const [client, server] = localChannels();
    const served = serveCopies(server, () => there, { compress: false });
    // livesnap refuses such tags, but another program may offer one.
    const [result] = await requestCopies(
      changing(client, MessageType.offer, (bytes) => {
        const length = bytes.readUInt32LE(0);
        return offerOf(
          { ...JSON.parse(bytes.toString('utf8', 4, 4 + length)), tags: [tag, 'theirs'] },
          bytes.subarray(4 + length),
        );
      }),
      here,
      'from',
      ['theirs'],
      { ...silent, compress: false },
    );
    await served;
    assert.deepEqual(result!.skippedTags, [tag]);
    assert.deepEqual(here.find(theirs.id).tags, ['theirs']);
    assert.equal(here.find(mine.id).id, mine.id);
    assert.deepEqual(await load(here, mine.id), { x: noise(1, 3) });
  });

  it('succeeds beside another copy of the same snapshot, whichever commits first', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 400) }, { tag: 'a' });
    const [client, server] = localChannels();
    let resume = (): void => {};
    const otherIsDone = new Promise<void>((resolve) => {
      resume = resolve;
    });
    // Everything was sent. Before the destination sees the end, another copy commits.
    const slow: Channel = {
      ...changing(server, MessageType.sent, (bytes) => bytes),
      receive: async (...types) => {
        const message = await server.receive(...types);
        if (message.type === MessageType.sent) await otherIsDone;
        return message;
      },
    };
    const served = serveCopies(slow, () => there, { compress: false });
    const first = requestCopies(client, here, 'to', ['a'], { ...silent, compress: false });
    const { results } = await copy(dir, 'to', other, ['a']);
    assert.equal(results[0]!.sentChunks, 400);
    resume();
    const [late] = await first;
    await served;
    assert.deepEqual([late!.id, late!.sentChunks, late!.skippedTags], [id, 400, []]);
    await requireEqual(here, there, 'a');
    await requireSound(there);
    assert.equal(there.stats().deadBytes, 0);

    there.remove(['a']);
    await there.gc({ dryRun: false });
    await Promise.all([1, 2, 3].map(() => copy(dir, 'to', other, ['a'])));
    await requireEqual(here, there, 'a');
    await requireSound(there);
  });

  it('is refused while a reader or another copy holds the snapshot file, and keeps the chunks', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 400) }, { tag: 'a' });
    await copy(dir, 'to', other, ['a']);
    const reader = await there.openSnapshot('a');
    there.remove(['a']);
    await assert.rejects(copy(dir, 'to', other, ['a']), {
      code: 'STORE_BUSY',
      message: /removed.*still being read/,
      hint: /then copy again/,
    });
    reader.close();
    const again = await copy(dir, 'to', other, ['a']);
    assert.equal(again.plans[0]!.sendChunks, 0);
    await requireEqual(here, there, 'a');

    there.remove(['a']);
    await there.gc({ dryRun: false });
    const fd = createLocked(join(other, 'snapshots', id));
    await assert.rejects(copy(dir, 'to', other, ['a']), { code: 'STORE_BUSY', message: /another copy/ });
    assert.deepEqual(there.list(), []);
    closeSync(fd);
    const last = await copy(dir, 'to', other, ['a']);
    assert.equal(last.plans[0]!.sendChunks, 0);
    await requireEqual(here, there, 'a');
    await requireSound(there);
  });

  it('refuses an offer of another snapshot than the requested ID', async function () {
    const { store: here } = newStore(this);
    const { store: there } = newStore(this);
    const wanted = await save(there, { x: noise(2, 3) });
    const [client, server] = localChannels();
    const served = serveCopies(server, () => there, { compress: false });
    served.catch(() => {});
    const otherId = 'ab'.repeat(16);
    await assert.rejects(
      requestCopies(
        changing(client, MessageType.offer, (bytes) => {
          const length = bytes.readUInt32LE(0);
          const offer = JSON.parse(bytes.toString('utf8', 4, 4 + length));
          offer.description.id = otherId;
          return offerOf(offer, bytes.subarray(4 + length));
        }),
        here,
        'from',
        [wanted.id],
        { ...silent, compress: false },
      ),
      { code: 'REMOTE_FAILED', message: /offered snapshot abab.* instead of/ },
    );
    assert.deepEqual(here.list(), []);
  });

  it('refuses to send damaged chunks, and replaces those that are damaged at the destination', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    await save(here, { x: noise(1, 100) }, { tag: 'a' });
    await save(there, { y: noise(1, 100) }, { tag: 'b' });
    for (const [damaged, healthy] of [
      [dir, other],
      [other, dir],
    ] as const) {
      const path = join(damaged, 'packs', readdirSync(join(damaged, 'packs'))[0]!);
      const bytes = readFileSync(path);
      bytes[5000]! ^= 1;
      writeFileSync(path, bytes);
      const wanted = damaged === dir ? 'b' : 'a';
      // Into the damaged store: chunks that cannot be read there are sent.
      await copy(healthy, 'to', damaged, [wanted]);
      const into = Store.open(damaged, { write: false });
      assert.deepEqual(Object.values(await load(into, wanted))[0], noise(1, 100));
      into.close();
      const out = damaged === dir ? 'a' : 'b';
      const { store: empty, dir: elsewhere } = newStore(this);
      await assert.rejects(copy(damaged, 'to', elsewhere, [out]), { code: 'DAMAGED' });
      assert.deepEqual(empty.list(), []);
      bytes[5000]! ^= 1;
      writeFileSync(path, bytes);
    }
  });

  it('needs memory for distinct blocks only, not for the size that a snapshot claims', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: Buffer.concat(Array.from({ length: 512 }, () => noise(1, 1))) });
    there.close();
    // The same block 32768 times: 64 GiB in a file of 1 MiB.
    const blocks = 32768;
    const { description, blocks: one, state } = readSnapshotFile(other, id);
    const list = new BlockList();
    for (let block = 0; block < blocks; block++) list.push({ ...one.at(0), block });
    unlinkSync(join(other, snapshotFile(id)));
    const regions = [{ name: 'x', sizeBytes: blocks * 512 * 4096, nonZeroPages: blocks * 512 }];
    closeSync(writeSnapshotFile(other, { ...description, regions }, list, state).fd);
    const { store: here, dir } = newStore(this);
    const exports = new URL('../../src/store/remote/export.js', import.meta.url);
    const memory = new URL('./peak-memory.js', import.meta.url);
    const script = `const [storeDir, from] = process.argv.slice(1);
      import(${JSON.stringify(exports)}).then(async ({ importSnapshots }) => {
        await importSnapshots({ storeDir, from, onPlan: () => {}, progress: () => {} });
        const { peakRssKiB } = await import(${JSON.stringify(memory)});
        console.log(peakRssKiB());
      });`;
    const child = spawnSync(process.execPath, ['-e', script, dir, other], { encoding: 'utf8' });
    assert.equal(child.status, 0, child.stderr);
    assert.ok(Number(child.stdout) < 300 * 1024, `${child.stdout} KiB`);
    assert.equal(here.stats().logicalBytes, blocks * 512 * 4096);
    assert.equal(here.stats().chunks, 1);
  });

  it('completes when the snapshot is removed and gc runs at both ends meanwhile', async function () {
    const { store: here } = newStore(this);
    const { store: there } = newStore(this);
    const { id } = await save(here, { x: noise(1, 9000) });
    const [a, b] = localChannels();
    const end = serveCopies(b, () => there, { compress: false });
    await requestCopies(a, here, 'to', [id], {
      ...silent,
      compress: false,
      onPlan: () => {
        here.remove([id]);
        void here.gc({ dryRun: false });
        void there.gc({ dryRun: false });
      },
    });
    await end;
    assert.deepEqual(await load(there, id), { x: noise(1, 9000) });
    await requireSound(there);
  });
});
