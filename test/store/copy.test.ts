/** Copies: only what the other side lacks travels, a cut copy goes on, and nobody believes the other side. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { hash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { Duplex, PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { LivesnapError } from '../../src/errors.js';
import { type Channel, localChannels, StreamChannel } from '../../src/store/copy/channel.js';
import type { CopyPlan, CopyResult } from '../../src/store/copy/copy-result.js';
import { encodeHello, MessageType } from '../../src/store/copy/protocol.js';
import { askForCopies, serveCopies } from '../../src/store/copy/sessions.js';
import { createLocked } from '../../src/store/file-locks.js';
import { Index } from '../../src/store/index-database.js';
import { copySnapshots } from '../../src/store/remote/copy.js';
import { parseSshAddress, sshArguments } from '../../src/store/remote/ssh.js';
import {
  BlockList,
  readSnapshotFile,
  snapshotFile,
  writeSnapshotFile,
} from '../../src/store/snapshot-file.js';
import { Store } from '../../src/store/store.js';
import {
  dropScratch,
  load,
  mountSmall,
  newStore,
  noise,
  onDrop,
  save,
  scratchDir,
  seeded,
  textPages,
} from './scratch.js';

const MAIN = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const quiet = { onPlan: () => {}, progress: () => {} };

async function copy(
  storeDir: string,
  direction: 'to' | 'from',
  remote: string,
  refs: string[],
  fingerprintBits = 64,
): Promise<{ results: CopyResult[]; plans: CopyPlan[] }> {
  const plans: CopyPlan[] = [];
  const onPlan = (plan: CopyPlan): void => void plans.push(plan);
  const results = await copySnapshots({
    ...{ storeDir, direction, remote, refs, fingerprintBits },
    ...{ onPlan, progress: () => {} },
  });
  return { results, plans };
}

async function requireEqual(a: Store, b: Store, ref: string): Promise<void> {
  assert.deepEqual(await load(a, ref), await load(b, ref));
  const [one, other] = [a.find(ref), b.find(ref)];
  for (const key of ['id', 'kind', 'vm', 'parent', 'createdAt', 'memoryBytes'] as const)
    assert.equal(one[key], other[key], key);
  const states = await Promise.all(
    [a, b].map(async (store) => {
      const snapshot = await store.openSnapshot(ref);
      snapshot.close();
      return Buffer.from(snapshot.metadata.state);
    }),
  );
  assert.deepEqual(states[0], states[1]);
}

async function requireSound(store: Store): Promise<void> {
  assert.deepEqual(await store.check({ readData: true }), { ok: true, problems: [] });
}

const RAM = Buffer.concat([noise(1, 300), Buffer.alloc(700 * 4096), textPages(2, 600)]);

describe('a copy', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const bits of [64, 4])
    it(`to and from a directory sends what is lacking, once (fingerprints of ${bits} bits)`, async function () {
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
      // Some of it is there already, in another order, in another snapshot.
      await save(there, { x: Buffer.concat([noise(9, 3), RAM.subarray(0, 100 * 4096)]) });

      const { results, plans } = await copy(dir, 'to', other, ['a'], bits);
      // Of many chunks with one fingerprint only some are tried.
      const presentChunks = bits === 64 ? 100 : plans[0]!.presentChunks;
      const sendChunks = 930 - presentChunks;
      assert.ok(presentChunks > 0);
      assert.deepEqual(plans, [{ id: a.id, alreadyThere: false, sendChunks, presentChunks }]);
      assert.deepEqual(
        results.map(({ sentBytes, ...rest }) => rest),
        [{ id: a.id, sentChunks: sendChunks, presentChunks, tagTaken: false }],
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

      // Back again, into a store that is made for it.
      const third = join(scratchDir(this), 'made');
      await copy(third, 'from', other, ['a', b.id.slice(0, 12)], bits);
      const made = Store.open(third, { write: true, fingerprintBits: bits });
      onDrop(this, () => made.close());
      await requireEqual(here, made, 'a');
      await requireEqual(here, made, 'b');
      await requireSound(made);
      await assert.rejects(copy(third, 'from', other, ['none'], bits), {
        code: 'NO_SUCH_SNAPSHOT',
        message: /on the other side/,
      });
    });

  it('leaves a tag that names another snapshot there with that', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) }, { tag: 'same' });
    const theirs = await save(there, { x: noise(2, 3) }, { tag: 'same' });
    const { results } = await copy(dir, 'to', other, ['same']);
    assert.equal(results[0]!.tagTaken, true);
    assert.equal(there.resolve('same'), theirs.id);
    assert.equal(there.find(mine.id).tag, null);
  });

  it('leaves a tag that is set at the last moment where it is, and says so', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) }, { tag: 'same' });
    const theirs = await save(there, { x: noise(2, 3) });
    const { commitSave } = Index.prototype;
    onDrop(this, () => {
      Index.prototype.commitSave = commitSave;
    });
    Index.prototype.commitSave = function (...save) {
      there.setTag(theirs.id, 'same');
      return commitSave.apply(this, save);
    };
    const { results } = await copy(dir, 'to', other, ['same']);
    assert.equal(results[0]!.tagTaken, true);
    assert.equal(there.resolve('same'), theirs.id);
    assert.equal(there.find(mine.id).tag, null);
    assert.equal(readFileSync(join(other, 'tags/same'), 'latin1'), `${theirs.id}\n`);
    await requireSound(there);
  });

  it('ends well beside another one of the same snapshot, whichever is first', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 400) }, { tag: 'a' });
    const [asking, serving] = localChannels();
    let go = (): void => {};
    const otherIsDone = new Promise<void>((resolve) => {
      go = resolve;
    });
    // All has been sent; before the end of it is heard another copy comes to its own.
    const slow: Channel = {
      ...changing(serving, MessageType.sent, (bytes) => bytes),
      receive: async (...types) => {
        const message = await serving.receive(...types);
        if (message.type === MessageType.sent) await otherIsDone;
        return message;
      },
    };
    const served = serveCopies(slow, () => there, { compress: false });
    const first = askForCopies(asking, here, 'to', ['a'], { ...quiet, compress: false });
    const { results } = await copy(dir, 'to', other, ['a']);
    assert.equal(results[0]!.sentChunks, 400);
    go();
    const [late] = await first;
    await served;
    assert.deepEqual([late!.id, late!.sentChunks, late!.tagTaken], [id, 400, false]);
    await requireEqual(here, there, 'a');
    await requireSound(there);
    assert.equal(there.stats().deadBytes, 0);

    there.remove(['a']);
    await there.gc({ dryRun: false });
    await Promise.all([1, 2, 3].map(() => copy(dir, 'to', other, ['a'])));
    await requireEqual(here, there, 'a');
    await requireSound(there);
  });

  it('does not take the place of a file that a reader or another copy holds, and what has come is kept', async function () {
    const { store: here, dir } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 400) }, { tag: 'a' });
    await copy(dir, 'to', other, ['a']);
    const reader = await there.openSnapshot('a');
    there.remove(['a']);
    await assert.rejects(copy(dir, 'to', other, ['a']), {
      code: 'STORE_BUSY',
      message: /removed.*still read/,
      hint: /when that has ended/,
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

  it('leaves a tag behind that looks like an id, so that it cannot stand in for another snapshot', async function () {
    const { store: here } = newStore(this);
    const mine = await save(here, { x: noise(1, 3) });
    const { store: there } = newStore(this);
    const theirs = await save(there, { x: noise(2, 3) }, { tag: 'theirs' });
    const tag = mine.id;
    const [asking, serving] = localChannels();
    const served = serveCopies(serving, () => there, { compress: false });
    // Another program may offer what livesnap would not.
    const [result] = await askForCopies(
      changing(asking, MessageType.offer, (bytes) => {
        const length = bytes.readUInt32LE(0);
        return offerOf(
          { ...JSON.parse(bytes.toString('utf8', 4, 4 + length)), tag },
          bytes.subarray(4 + length),
        );
      }),
      here,
      'from',
      ['theirs'],
      { ...quiet, compress: false },
    );
    await served;
    assert.equal(result!.tagTaken, true);
    assert.equal(here.find(theirs.id).tag, null);
    assert.equal(here.find(mine.id).id, mine.id);
    assert.deepEqual(await load(here, mine.id), { x: noise(1, 3) });
  });

  it('of an id is of that snapshot and no other', async function () {
    const { store: here } = newStore(this);
    const { store: there } = newStore(this);
    const wanted = await save(there, { x: noise(2, 3) });
    const [asking, serving] = localChannels();
    const served = serveCopies(serving, () => there, { compress: false });
    served.catch(() => {});
    const stranger = 'ab'.repeat(16);
    await assert.rejects(
      askForCopies(
        changing(asking, MessageType.offer, (bytes) => {
          const length = bytes.readUInt32LE(0);
          const offer = JSON.parse(bytes.toString('utf8', 4, 4 + length));
          offer.description.id = stranger;
          return offerOf(offer, bytes.subarray(4 + length));
        }),
        here,
        'from',
        [wanted.id],
        { ...quiet, compress: false },
      ),
      { code: 'REMOTE_FAILED', message: /another snapshot/ },
    );
    assert.deepEqual(here.list(), []);
  });

  it('refuses to spread damage, and takes nothing on trust that is damaged at the destination', async function () {
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
      // Into the damaged one: what cannot be read there is sent.
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

  it('that is cut at any byte goes on where it stopped', async function () {
    this.timeout(120_000);
    const { store: here } = newStore(this);
    // Two checkpoints long.
    const contents = { 'ram@0x0': noise(5, 20_000) };
    const { id } = await save(here, contents, { tag: 'big' });
    const { store: there } = newStore(this);
    const next = seeded(3);
    let lacking = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 6; round++) {
      const cutAfter = 30_000_000 + (next() % 25_000_000);
      let sends = 0;
      const [asking, serving] = cuttableChannels(cutAfter);
      const served = serveCopies(serving, () => there, { compress: false });
      served.catch(() => {});
      const done = await askForCopies(asking, here, 'to', ['big'], {
        ...quiet,
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
      assert.ok(sends < lacking || (done && sends <= lacking), `${sends} of ${lacking}`);
      lacking = sends;
      if (done) break;
      assert.deepEqual(there.list(), []);
    }
    await requireEqual(here, there, id);
    await requireSound(there);
  });

  for (const direction of ['to', 'from'] as const)
    it(`${direction} a directory, when the source fails late, keeps what has arrived and nothing else`, async function () {
      const { store: here, dir } = newStore(this);
      await save(here, { x: noise(6, 9000) }, { tag: 'a' });
      const { store: there, dir: other } = newStore(this);
      const [from, to] = [direction === 'to' ? dir : other, direction === 'to' ? other : dir];
      if (direction === 'from')
        await copySnapshots({ ...quiet, storeDir: dir, direction: 'to', remote: other, refs: ['a'] });
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
      // The plan is told before pages travel.
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
      assert.ok(
        readdirSync(join(to, 'packs')).length <= packs + 1,
        'an attempt leaves what has arrived, once',
      );
      bytes[late]! ^= 1;
      flip();
      const { plans } = await attempt();
      assert.ok(plans[0]!.sendChunks < 1000, `${plans[0]!.sendChunks} chunks were still to send`);
      await requireEqual(source, destination, 'a');
    });

  /** An empty directory that has room for so many bytes. */
  function smallDisk(test: Mocha.Context, sizeBytes: number): string {
    const dir = join(scratchDir(test), 'small');
    mkdirSync(dir);
    mountSmall(test, dir, sizeBytes);
    return dir;
  }

  it('to a disk that is full ends there, and the rest of the snapshot is not read', async function () {
    const { store: here } = newStore(this);
    await save(here, { x: noise(6, 9000) }, { tag: 'a' });
    const there = Store.open(smallDisk(this, 12 << 20), { write: true, create: true });
    onDrop(this, () => there.close());
    const [asking, serving] = localChannels();
    let sent = 0;
    const counting: Channel = {
      ...changing(asking, MessageType.done, (bytes) => bytes),
      send: async (type, ...parts) => {
        await asking.send(type, ...parts);
        if (type === MessageType.pages) sent += 16;
      },
    };
    const served = serveCopies(serving, () => there, { compress: false });
    served.catch(() => {});
    await assert.rejects(askForCopies(counting, here, 'to', ['a'], { ...quiet, compress: false }), {
      code: 'NO_SPACE',
      message: /on the other side: .*full/,
    });
    assert.ok(sent < 4000, `${sent} pages were sent`);
    await assert.rejects(served, { code: 'NO_SPACE' });
  });

  it('over ssh to a disk that is full says so', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 9000) }, { tag: 'a' });
    const small = smallDisk(this, 12 << 20);
    // In the place of a shell on another host.
    useSsh(this, 'for command; do :; done; exec sh -c "$command"');
    await assert.rejects(copy(dir, 'to', `ssh://host${small}`, ['a']), {
      code: 'NO_SPACE',
      message: /on the other side: .*full/,
    });
  });

  it('over an ssh that talks nonsense and stays says what is wrong', async function () {
    this.timeout(20_000);
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    // Of an ssh that is ended by a signal the status is that of one that could not reach the host.
    useSsh(this, "trap 'kill $!; exit 255' TERM; echo Welcome to this host; sleep 60 >&- & wait");
    await assert.rejects(copy(dir, 'to', 'ssh://host/store', ['a']), {
      code: 'REMOTE_FAILED',
      message: /does not speak as a livesnap does/,
    });
  });

  it('over ssh tells what ssh prints in lines of a bounded length, and the last one is in the error', async function () {
    const { store: here, dir } = newStore(this);
    await save(here, { x: noise(6, 10) }, { tag: 'a' });
    useSsh(
      this,
      "printf 'one\\r\\ntwo\\n' >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; printf '\\nlast' >&2; exit 255",
    );
    const lines: string[] = [];
    await assert.rejects(
      copySnapshots({
        ...quiet,
        ...{ storeDir: dir, direction: 'to', remote: 'ssh://host/store', refs: ['a'] },
        onNotice: (line) => void lines.push(line),
      }),
      { code: 'REMOTE_FAILED', message: 'ssh could not reach host: last' },
    );
    assert.deepEqual([lines.slice(0, 2), lines.at(-1)], [['one', 'two'], 'last']);
    const long = lines.slice(2, -1);
    assert.equal(long.join(''), 'x'.repeat(100_000));
    assert.ok(long.every((line) => line.length <= 4096));
  });

  it('of a small snapshot that unfolds to a great deal takes no more than the small one', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: Buffer.concat(Array.from({ length: 512 }, () => noise(1, 1))) });
    there.close();
    // The same block 32768 times: 64 GiB, in 1 MiB.
    const blocks = 32768;
    const { description, blocks: one, state } = readSnapshotFile(other, id);
    const list = new BlockList();
    for (let block = 0; block < blocks; block++) list.push({ ...one.at(0), block });
    unlinkSync(join(other, snapshotFile(id)));
    const regions = [{ name: 'x', sizeBytes: blocks * 512 * 4096, nonZeroPages: blocks * 512 }];
    closeSync(writeSnapshotFile(other, { ...description, regions }, list, state).fd);
    const { store: here, dir } = newStore(this);
    const exports = new URL('../../src/store/remote/export.js', import.meta.url);
    const script = `const [storeDir, from] = process.argv.slice(1);
      import(${JSON.stringify(exports)}).then(async ({ importSnapshots }) => {
        await importSnapshots({ storeDir, from, onPlan: () => {}, progress: () => {} });
        console.log(process.resourceUsage().maxRSS);
      });`;
    const child = spawnSync(process.execPath, ['-e', script, dir, other], { encoding: 'utf8' });
    assert.equal(child.status, 0, child.stderr);
    assert.ok(Number(child.stdout) < 300 * 1024, `${child.stdout} KiB`);
    assert.equal(here.stats().logicalBytes, blocks * 512 * 4096);
    assert.equal(here.stats().chunks, 1);
  });

  it('of a snapshot that is removed meanwhile comes to its end, and gc takes what a cut one left', async function () {
    const { store: here } = newStore(this);
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(here, { x: noise(1, 9000) });
    const [asking, serving] = cuttableChannels(36_000_000);
    const served = serveCopies(serving, () => there, { compress: false }).catch(() => {});
    await assert.rejects(askForCopies(asking, here, 'to', [id], { ...quiet, compress: false }));
    await served;
    assert.ok(there.stats().deadBytes > 30_000_000);
    await there.gc({ dryRun: false });
    assert.deepEqual(readdirSync(join(other, 'packs')), []);

    const [a, b] = localChannels();
    const end = serveCopies(b, () => there, { compress: false });
    await askForCopies(a, here, 'to', [id], {
      ...quiet,
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

const offerOf = (value: unknown, state: Uint8Array = Buffer.alloc(0)): Buffer =>
  jsonOffer(JSON.stringify(value), state);

function jsonOffer(text: string, state: Uint8Array = Buffer.alloc(0)): Buffer {
  const json = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return Buffer.concat([length, json, state]);
}

/** For the length of a test `ssh` is a script, and livesnap on the other host this one. */
function useSsh(test: Mocha.Context, script: string): void {
  const bin = scratchDir(test);
  writeFileSync(join(bin, 'ssh'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const { PATH, LIVESNAP_REMOTE_COMMAND } = process.env;
  onDrop(test, () => {
    for (const [name, value] of Object.entries({ PATH, LIVESNAP_REMOTE_COMMAND }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  });
  process.env.PATH = `${bin}:${PATH}`;
  process.env.LIVESNAP_REMOTE_COMMAND = `'${process.execPath}' '${MAIN}'`;
}

/** A channel on which messages of a type arrive as something else. */
const changing = (channel: Channel, type: MessageType, change: (bytes: Buffer) => Buffer): Channel => ({
  send: (...message) => channel.send(...message),
  receive: async (...types) => {
    const message = await channel.receive(...types);
    return message.type === type ? { ...message, bytes: change(message.bytes) } : message;
  },
  close: () => channel.close(),
});

/** Two ends on streams; after so many bytes from the asking one both are gone. */
function cuttableChannels(cutAfter: number): [Channel, Channel] {
  const there = new PassThrough();
  const back = new PassThrough();
  let passed = 0;
  const cut = new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      const part = chunk.subarray(0, Math.max(0, cutAfter - passed));
      passed += chunk.length;
      there.write(part);
      if (passed >= cutAfter) {
        there.end();
        back.end();
        back.destroy();
      }
      done(passed >= cutAfter ? new Error('cut') : null);
    },
  });
  cut.on('error', () => {});
  return [new StreamChannel(back, cut), new StreamChannel(there, back)];
}

describe('the destination of a copy', () => {
  afterEach(function () {
    dropScratch(this);
  });

  const ID = 'ab'.repeat(16);
  const description = {
    id: ID,
    kind: 'file',
    vm: 'x',
    parent: null,
    createdAt: '2026-01-01T00:00:00.000Z',
    memoryBytes: 8192,
    diskBytes: 0,
    packBytes: 0,
    regions: [{ name: 'file', sizeBytes: 8192, nonZeroPages: 2 }],
    machine: null,
    host: null,
  };
  const offerJson = JSON.stringify({ description, tag: null });
  const good = offerOf({ description, tag: null });
  /** So many bytes and as many of `machine` as there may be are those of a description. */
  const plainBytes = JSON.stringify({ ...description, machine: '' }).length;
  const words = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);
  const { offer, have, chunks, offered, need, pages, sent, blocks, layout, placed, error } = MessageType;
  const nothing = Buffer.alloc(0);
  const content = noise(1, 2);
  const identities = Buffer.concat(
    [0, 4096].flatMap((from) => [
      Buffer.alloc(8, 7),
      hash('sha256', content.subarray(from, from + 4096), 'buffer'),
    ]),
  );
  const block = (...numbers: number[]): Buffer => {
    const bits = Buffer.alloc(64);
    numbers.forEach((_, page) => {
      bits[page >>> 3]! |= 1 << (page & 7);
    });
    return Buffer.concat([bits, words(...numbers)]);
  };

  type Step = [MessageType, Buffer] | 'wait have' | 'wait need';
  const upTo: Step[] = [[offer, good], 'wait have', [chunks, identities]];
  const until: Step[] = [...upTo, [offered, nothing], 'wait need'];
  const rawPages = Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), content]);
  const arrived: Step[] = [...until, [pages, rawPages], [sent, nothing]];
  const stored: Step[] = [...arrived, [blocks, block(0, 1)]];
  const lies: Record<string, Step[]> = {
    'an offer of no length': [[offer, Buffer.alloc(0)]],
    'an offer longer than itself': [[offer, words(4_000_000_000)]],
    'an offer that is not JSON': [[offer, Buffer.concat([words(3), Buffer.from('{{{')])]],
    'no description': [[offer, offerOf({})]],
    'an id that is a path': [
      [offer, offerOf({ description: { ...description, id: '../../etc/passwd' }, tag: null })],
    ],
    'a tag that is a path': [[offer, offerOf({ description, tag: '../x' })]],
    'regions of one name': [
      [
        offer,
        offerOf({
          description: { ...description, regions: [1, 2].map(() => description.regions[0]) },
          tag: null,
        }),
      ],
    ],
    'a region of 2^60 bytes': [
      [
        offer,
        offerOf({
          description: { ...description, regions: [{ name: 'a', sizeBytes: 2 ** 60, nonZeroPages: 1 }] },
          tag: null,
        }),
      ],
    ],
    'a description that is longer than a file may have it': [
      [offer, offerOf({ description: { ...description, machine: 'x'.repeat(1 << 20) }, tag: null })],
    ],
    'a description that is longer when it is written again': [
      [offer, jsonOffer(offerJson.replace('"machine":null', `"machine":[${'1e20,'.repeat(100_000)}0]`))],
    ],
    'a description that would be too long with what is counted here': [
      [
        offer,
        offerOf({ description: { ...description, machine: 'x'.repeat((1 << 20) - plainBytes) }, tag: null }),
      ],
    ],
    'a description of 20,000 arrays within each other': [
      [
        offer,
        jsonOffer(
          offerJson.replace('"machine":null', `"machine":${'['.repeat(20_000)}${']'.repeat(20_000)}`),
        ),
      ],
    ],
    'half an identity': [[offer, good], 'wait have', [chunks, Buffer.alloc(39)]],
    'too many identities at once': [[offer, good], 'wait have', [chunks, Buffer.alloc(40 * 5000, 1)]],
    'a block before the pages': [...until, [blocks, block(0, 1)]],
    'a block of nothing': [...arrived, [blocks, block()]],
    'a block that is cut': [...arrived, [blocks, block(0, 1).subarray(0, 70)]],
    'half a block after a whole one': [
      ...arrived,
      [blocks, Buffer.concat([block(0, 1), block(0)]).subarray(0, 100)],
    ],
    'a chunk that was not offered': [...arrived, [blocks, block(0, 2)]],
    'too many blocks at once': [
      ...arrived,
      [blocks, Buffer.concat(Array.from({ length: 33 }, () => block(0)))],
    ],
    'a region that there is not': [...stored, [layout, words(1, 0, 0)]],
    'a block beyond the region': [...stored, [layout, words(0, 1, 0)]],
    'a page beyond the region': [...arrived, [blocks, block(0, 1, 0)], [layout, words(0, 0, 0)]],
    'a block twice': [...stored, [layout, words(0, 0, 0, 0, 0)]],
    'a block twice, in two messages': [...stored, [layout, words(0, 0, 0)], [layout, words(0, 0, 0)]],
    'a block that was not offered': [...stored, [layout, words(0, 0, 1)]],
    'a layout that is cut': [...stored, [layout, words(0, 0)]],
    'an end before the layout': [...stored, [MessageType.done, nothing]],
    'pages out of turn': [...upTo, [pages, Buffer.alloc(100)]],
    'a page that was not asked for': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 2), content])],
    ],
    'fewer pages at once than it might': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 1, 0, 0]), words(0), content.subarray(0, 4096)])],
    ],
    'a count of 200 pages': [...until, [pages, Buffer.concat([Buffer.from([0, 200, 0, 0]), words(0)])]],
    'no pages at all': [...until, [pages, Buffer.alloc(0)]],
    'another page than it announced': [
      ...until,
      [
        pages,
        Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), content.subarray(0, 4096), noise(2, 1)]),
      ],
    ],
    'a page of another length': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), Buffer.alloc(9000)])],
    ],
    'a bomb': [
      ...until,
      [pages, Buffer.concat([Buffer.from([1, 2, 0, 0]), words(0, 1), Buffer.alloc(8000, 255)])],
    ],
    'unknown flags': [...until, [pages, Buffer.concat([Buffer.from([9, 2, 0, 0]), words(0, 1), content])]],
    'an end before all has come': [...until, [sent, Buffer.alloc(0)]],
    'an error that makes no sense': [[error, Buffer.from('!')]],
    'an error of 1 MiB': [[error, Buffer.from(JSON.stringify({ message: 'x'.repeat(1 << 20) }))]],
    'a greeting in the middle': [[MessageType.hello, Buffer.alloc(12)]],
    'an error with a code of its own': [[error, Buffer.from('{"code":"__proto__","message":5}')]],
  };

  async function play(theirs: Channel, steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (step === 'wait have') await theirs.receive(have);
      else if (step === 'wait need') await theirs.receive(need);
      else await theirs.send(...step);
    }
  }

  it('takes what is no lie', async function () {
    const { store } = newStore(this);
    const [mine, theirs] = localChannels();
    const received = store.receiveCopy(mine, quiet);
    for (const step of [...stored, [layout, words(0, 0, 0)], [placed, nothing]] as Step[]) {
      if (step === 'wait have') await theirs.receive(have);
      else if (step === 'wait need') assert.deepEqual([...(await theirs.receive(need)).bytes], [3]);
      else await theirs.send(...step);
    }
    await received;
    assert.deepEqual(await load(store, ID), { file: content });
    await requireSound(store);
  });

  it('takes a description of nearly 1 MiB', async function () {
    const { store } = newStore(this);
    const [mine, theirs] = localChannels();
    const received = store.receiveCopy(mine, quiet);
    received.catch(() => {});
    const machine = 'x'.repeat((1 << 20) - 1000);
    const long = offerOf({ description: { ...description, machine }, tag: null });
    await play(theirs, [[offer, long], ...stored.slice(1), [layout, words(0, 0, 0)], [placed, nothing]]);
    await received;
    const snapshot = await store.openSnapshot(ID);
    snapshot.close();
    assert.equal(snapshot.metadata.machine, machine);
  });

  it('needs little memory for each chunk that is announced', async function () {
    const { dir } = newStore(this);
    const child = spawn(process.execPath, ['--max-old-space-size=48', MAIN, 'serve-store', '--store', dir], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    const channel = new StreamChannel(child.stdout!, child.stdin!);
    await channel.send(MessageType.hello, encodeHello());
    await channel.receive(MessageType.hello);
    await channel.send(MessageType.request, Buffer.from('{"verb": "receive"}'));
    await channel.send(offer, good);
    await channel.receive(have);
    const messages = 150;
    for (let i = 0; i < messages; i++) await channel.send(chunks, randomBytes(4096 * 40));
    await channel.send(offered);
    const { bytes } = await channel.receive(need);
    assert.equal(bytes.length, (messages * 4096) / 8);
    assert.ok(bytes.every((byte) => byte === 255));
    channel.close();
    await ended;
  });

  for (const [what, steps] of Object.entries(lies))
    it(`refuses ${what}`, async function () {
      const { store } = newStore(this);
      const [mine, theirs] = localChannels();
      const received = store.receiveCopy(mine, quiet);
      received.catch(() => {});
      await play(theirs, steps);
      await assert.rejects(received, { code: 'REMOTE_FAILED' });
      assert.deepEqual(store.list(), []);
      await store.gc({ dryRun: false });
      assert.equal(store.stats().storedBytes, newStore(this).store.stats().storedBytes);
    });

  it('refuses frames of streams that are no messages, whatever the bytes', async function () {
    const { store } = newStore(this);
    for (let seed = 1; seed <= 40; seed++) {
      const input = new PassThrough();
      const channel = new StreamChannel(input, new PassThrough().resume());
      const bytes = noise(seed, 1);
      if (seed % 2 === 0) {
        bytes.writeUInt32LE(seed * 10, 0);
        bytes[4] = MessageType.hello;
        bytes.fill(0, 5, 8);
      }
      input.end(bytes);
      await assert.rejects(
        serveCopies(channel, () => store, { compress: true }),
        { code: 'REMOTE_FAILED' },
      );
    }
    assert.deepEqual(store.list(), []);
  });
});

/** A server of a directory's files; `spoil` may answer otherwise. */
async function serve(
  test: Mocha.Context,
  dir: string,
  {
    ranges = true,
    spoil = () => false,
  }: { ranges?: boolean; spoil?: (path: string, response: ServerResponse, bytes: Buffer) => boolean } = {},
): Promise<{ address: string; requests: string[] }> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url!, 'http://x').pathname)).slice(1);
    requests.push(`${path} ${request.headers.range ?? ''}`);
    let bytes: Buffer;
    try {
      bytes = readFileSync(join(dir, path));
    } catch {
      response.writeHead(404).end();
      return;
    }
    if (spoil(path, response, bytes)) return;
    const match = ranges && /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
    if (!match) {
      response.end(bytes);
      return;
    }
    const from = match[1] === '' ? Math.max(0, bytes.length - Number(match[2])) : Number(match[1]);
    const to = match[1] === '' || match[2] === '' ? bytes.length - 1 : Number(match[2]);
    response.writeHead(206, { 'content-range': `bytes ${from}-${to}/${bytes.length}` });
    response.end(bytes.subarray(from, to + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onDrop(test, () => {
    server.closeAllConnections();
    server.close();
  });
  return { address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, requests };
}

describe('a copy over http', () => {
  afterEach(function () {
    dropScratch(this);
  });

  for (const ranges of [true, false])
    it(`reads the files of a store from a server ${ranges ? 'with' : 'without'} ranges`, async function () {
      const { store: there, dir: other } = newStore(this);
      const whole = await save(there, { x: Buffer.concat([RAM, noise(8, 400)]) });
      const a = await save(there, { 'ram@0x0': RAM }, { tag: 'a' });
      there.remove([whole.id]);
      await there.gc({ dryRun: false }); // there is a second generation
      const b = await save(there, { 'ram@0x0': Buffer.concat([RAM, noise(4, 20)]) }, { parent: a.id });
      const { address, requests } = await serve(this, other, { ranges });
      const { store: here, dir } = newStore(this);
      await copy(dir, 'from', address, ['a']);
      await requireEqual(here, there, 'a');
      requests.length = 0;
      const { results } = await copy(dir, 'from', address.slice(0, -1), [b.id]);
      await requireEqual(here, there, b.id);
      await requireSound(here);
      assert.equal(results[0]!.sentChunks, 20);
      if (ranges) {
        assert.ok(results[0]!.sentBytes < 600_000, `${results[0]!.sentBytes} bytes`);
        assert.ok(requests.length < 40, requests.join('\n'));
      }
      assert.ok(requests.every((request) => !request.startsWith('store.db')));
      for (const ref of ['none', b.id.slice(0, 8), 'f'.repeat(32)])
        await assert.rejects(copy(dir, 'from', address, [ref]), { code: 'NO_SUCH_SNAPSHOT' });
      await assert.rejects(copy(dir, 'to', address, ['a']), { code: 'USAGE' });
      for (const more of ['?x=1', '#x', '?'])
        await assert.rejects(copy(dir, 'from', address + more, ['a']), { code: 'USAGE', hint: /%23/ });
    });

  for (const ranges of [true, false])
    it(`${ranges ? 'with' : 'without'} ranges needs little room beside what it brings, and none afterwards`, async function () {
      const { store: there, dir: other } = newStore(this);
      // Three packs of 4 MiB, each of which leaves room for no second one.
      const parts = [1, 2, 3].map((seed) => noise(seed, 1024));
      let parent: string | null = null;
      const ram = Buffer.alloc(3 * 1024 * 4096);
      for (const [i, part] of parts.entries()) {
        part.copy(ram, i * part.length);
        const only = { x: Array.from({ length: 1024 }, (_, page) => i * 1024 + page) };
        parent = (await save(there, { x: Buffer.from(ram) }, parent === null ? {} : { parent, only })).id;
      }
      const { address } = await serve(this, other, { ranges });
      const dir = join(scratchDir(this), 'small');
      mkdirSync(dir);
      mountSmall(this, dir, 20 << 20);
      await copy(dir, 'from', address, [parent!]);
      const here = Store.open(dir, { write: true });
      onDrop(this, () => here.close());
      await requireEqual(here, there, parent!);
      assert.deepEqual(
        readdirSync(join(dir, 'packs')).filter((name) => !name.endsWith('.pack')),
        [],
      );

      // A full disk here is not the server's fault.
      const full = join(scratchDir(this), 'full');
      mkdirSync(full);
      mountSmall(this, full, 5 << 20);
      await assert.rejects(copy(full, 'from', address, [parent!]), (error: LivesnapError) => {
        assert.equal(error.code, 'NO_SPACE', error.stack);
        assert.ok(error.message.includes(full) && !error.message.includes('other side'), error.message);
        return true;
      });
    });

  it('uses no room in the directory for temporary files', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: noise(1, 300) });
    const { address } = await serve(this, other);
    const { store: here, dir } = newStore(this);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = join(dir, 'nowhere');
    try {
      await copy(dir, 'from', address, [id]);
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
    await requireEqual(here, there, id);
  });

  it('believes nothing that the server says', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { 'ram@0x0': noise(1, 200) }, { tag: 'a' });
    const isPack = (path: string): boolean => path.startsWith('packs/');
    const flip = (bytes: Buffer, at: number): Buffer => {
      const wrong = Buffer.from(bytes);
      wrong[at % bytes.length]! ^= 4;
      return wrong;
    };
    const lies: Record<string, (path: string, response: ServerResponse, bytes: Buffer) => boolean> = {
      'a tag that is a path': (path, response) => path === 'tags/a' && !!response.end('../../etc/passwd\n'),
      'an endless tag': (path, response) => path === 'tags/a' && !!response.end('a'.repeat(1 << 20)),
      'another snapshot': (path, response, bytes) =>
        path.startsWith('snapshots/') && !!response.end(flip(bytes, 60)),
      'a pack of 2^50 bytes': (path, response) =>
        isPack(path) &&
        !!response.writeHead(206, { 'content-range': `bytes 0-63/${2 ** 50}` }).end(Buffer.alloc(64)),
      'a footer of nothing': (path, response) =>
        isPack(path) &&
        !!response.writeHead(206, { 'content-range': 'bytes 0-63/100000' }).end(Buffer.alloc(64)),
      'a pack with a wrong bit': (path, response, bytes) => isPack(path) && !!response.end(flip(bytes, 5000)),
      'an endless pack': (path, response, bytes) =>
        isPack(path) && !!response.end(Buffer.concat([bytes, bytes])),
      'an error': (path, response) => isPack(path) && !!response.writeHead(500).end(),
      'a cut': (path, response, bytes) => {
        if (!isPack(path)) return false;
        response.writeHead(200, { 'content-length': bytes.length });
        response.write(bytes.subarray(0, 1000));
        setTimeout(() => response.destroy(), 20);
        return true;
      },
    };
    for (const [what, spoil] of Object.entries(lies)) {
      const { address } = await serve(this, other, { spoil });
      const { store: here, dir } = newStore(this);
      await assert.rejects(
        copy(dir, 'from', address, [/tag/.test(what) ? 'a' : id]),
        (error: LivesnapError) => {
          assert.ok(
            ['DAMAGED', 'REMOTE_FAILED', 'NO_SUCH_SNAPSHOT'].includes(error.code),
            `${what}: ${error.stack}`,
          );
          return true;
        },
      );
      assert.deepEqual(here.list(), [], what);
    }
    await assert.rejects(copy(newStore(this).dir, 'from', 'http://127.0.0.1:9/', [id]), {
      code: 'REMOTE_FAILED',
    });
  });

  it('follows no redirect, and names where it leads', async function () {
    const { store: there, dir: other } = newStore(this);
    const { id } = await save(there, { x: noise(1, 20) }, { tag: 'a' });
    const inner = await serve(this, other);
    const targets = [
      `${inner.address}tags/a`,
      '/elsewhere',
      '//127.0.0.1:1/x',
      'file:///etc/passwd',
      'data:,x',
      '\u00e9 and more than a URL has',
    ];
    for (const location of targets)
      for (const status of [301, 302, 303, 307, 308])
        for (const kind of ['tags/', 'snapshots/', 'packs/']) {
          const redirecting = await serve(this, other, {
            spoil: (path, response) =>
              path.startsWith(kind) &&
              !!response.writeHead(status, { location: encodeURI(location) }).end('moved'),
          });
          const { store: here, dir } = newStore(this);
          await assert.rejects(
            copy(dir, 'from', redirecting.address, [kind === 'tags/' ? 'a' : id]),
            (error: LivesnapError) => {
              assert.equal(error.code, 'REMOTE_FAILED');
              assert.ok(
                error.message.includes(`redirects to ${JSON.stringify(encodeURI(location))}`),
                error.message,
              );
              return true;
            },
          );
          assert.deepEqual(here.list(), []);
        }
    assert.deepEqual(inner.requests, []);
  });

  it('refuses an address with a password, and does not repeat it', async function () {
    const dir = join(scratchDir(this), 'not-made');
    for (const address of ['http://me:secret@127.0.0.1:9/', 'https://:secret@127.0.0.1:9/'])
      await assert.rejects(copy(dir, 'from', address, ['a']), (error: LivesnapError) => {
        assert.equal(error.code, 'USAGE');
        assert.ok(!`${error.message}${error.hint}`.includes('secret'), error.message);
        return true;
      });
    assert.ok(!existsSync(dir));
  });
});

describe('an address of ssh', () => {
  it('is user, host, port and directory, and nothing that ssh or the shell there would take for more', () => {
    assert.deepEqual(parseSshAddress('ssh://me@host.example:2222/srv/store'), {
      host: 'me@host.example',
      port: '2222',
      dir: '/srv/store',
    });
    assert.deepEqual(sshArguments(parseSshAddress("ssh://host/a'b $(c)")), [
      '--',
      'host',
      "livesnap serve-store --store '/a'\\''b $(c)'",
    ]);
    assert.deepEqual(
      sshArguments(parseSshAddress('ssh://h/~/my store')).at(-1),
      'livesnap serve-store --store "$HOME"/\'my store\'',
    );
    assert.equal(parseSshAddress('ssh://h/a%23b%3Fc%25').dir, '/a#b?c%');
    // Brackets are the address's, not ssh's.
    for (const [address, words] of Object.entries({
      'ssh://[::1]/s': ['--', '::1'],
      'ssh://me@[2001:db8::7]:2222/s': ['-p', '2222', '--', 'me@2001:db8::7'],
      'ssh://host:22/s': ['-p', '22', '--', 'host'],
      'ssh://host:/s': ['--', 'host'],
      'ssh://my_host.example/s': ['--', 'my_host.example'],
      'ssh://h%C3%B4te/s': ['--', 'hôte'],
      'ssh://a%40b@host/s': ['--', 'a@b@host'],
    }))
      assert.deepEqual(sshArguments(parseSshAddress(address)).slice(0, -1), words, address);
    // They would be another store without a word.
    for (const cut of ['ssh://h/dir#x', 'ssh://h/dir?x', 'ssh://h/dir#', 'ssh://h/dir?', 'ssh://h/d\tir'])
      assert.throws(() => parseSshAddress(cut), { code: 'USAGE', hint: /%23/ }, cut);
    for (const bad of [
      'ssh://h/%zz',
      'ssh://%zz@h/dir',
      'ssh://h/%',
      'ssh://h/a%00b',
      'ssh://a%0ab@h/dir',
      'ssh://h/dir ',
      'ssh://',
      'ssh:///dir',
      'ssh://-oProxyCommand=x/dir',
      'ssh://host',
      'ssh://me:secret@host/dir',
      'ssh://-x@host/dir',
      'ssh://me@-host/dir',
      'ssh://%2DoProxyCommand=x/dir',
      'ssh://%2dx@host/dir',
      'ssh://a%20b/dir',
      'ssh://a%22b/dir',
      'ssh://a%24(x)/dir',
      'ssh://a%40b/dir',
      "ssh://a'b@host/dir",
      'ssh://a;b@host/dir',
      'ssh://host:0/dir',
      'ssh://host:65536/dir',
      'ssh://host:x/dir',
      'ssh://::1/dir',
      'ssh://[::1/dir',
      'ssh://[x]/dir',
    ])
      assert.throws(() => parseSshAddress(bad), { code: 'USAGE' }, bad);
  });
});
