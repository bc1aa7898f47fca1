/** The destination end against a hostile source: every violation of the protocol is refused and leaves no trace. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { pageOps } from '../../src/native/pages.js';
import { type Channel, localChannels, StreamChannel } from '../../src/store/copy/channel.js';
import { encodeHello, MessageType } from '../../src/store/copy/protocol.js';
import { serveCopies } from '../../src/store/copy/sessions.js';
import { BLAKE3, DIGESTS, digestsOf, SHA256 } from '../../src/store/pack/digest.js';
import { jsonOffer, offerOf, requireSound, silent } from './copying.js';
import { dropScratch, load, newStore, noise } from './scratch.js';

const MAIN = fileURLToPath(new URL('../../bin/livesnap.js', import.meta.url));

describe('the destination end of a copy', () => {
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
  const validOffer = offerOf({ description, tag: null });
  /** The length of the description without the contents of `machine`. */
  const plainBytes = JSON.stringify({ ...description, machine: '' }).length;
  const words = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);
  const { offer, have, chunks, offered, need, pages, sent, blocks, layout, placed, error } = MessageType;
  const nothing = Buffer.alloc(0);
  const content = noise(1, 2);
  /** A list of the two chunks, by digests of this ID. */
  const listOf = (id: number): Buffer => {
    const digests = digestsOf(pageOps, id, content, 2);
    return Buffer.concat([
      words(id),
      ...[0, 32].flatMap((at) => [Buffer.alloc(8, 7), digests.subarray(at, at + 32)]),
    ]);
  };
  const identities = listOf(BLAKE3);
  const block = (...numbers: number[]): Buffer => {
    const bits = Buffer.alloc(64);
    numbers.forEach((_, page) => {
      bits[page >>> 3]! |= 1 << (page & 7);
    });
    return Buffer.concat([bits, words(...numbers)]);
  };

  type Step = [MessageType, Buffer] | 'wait have' | 'wait need';
  const upTo: Step[] = [[offer, validOffer], 'wait have', [chunks, identities]];
  const until: Step[] = [...upTo, [offered, nothing], 'wait need'];
  const rawPages = Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), content]);
  const arrived: Step[] = [...until, [pages, rawPages], [sent, nothing]];
  const stored: Step[] = [...arrived, [blocks, block(0, 1)]];
  const violations: Record<string, Step[]> = {
    'an empty offer': [[offer, Buffer.alloc(0)]],
    'an offer with a length beyond its end': [[offer, words(4_000_000_000)]],
    'an offer that is not JSON': [[offer, Buffer.concat([words(3), Buffer.from('{{{')])]],
    'an offer without a description': [[offer, offerOf({})]],
    'an ID that is a path': [
      [offer, offerOf({ description: { ...description, id: '../../etc/passwd' }, tag: null })],
    ],
    'a tag that is a path': [[offer, offerOf({ description, tag: '../x' })]],
    'two regions with one name': [
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
    'a description that is longer than a snapshot file allows': [
      [offer, offerOf({ description: { ...description, machine: 'x'.repeat(1 << 20) }, tag: null })],
    ],
    'a description that becomes too long when it is encoded again': [
      [offer, jsonOffer(offerJson.replace('"machine":null', `"machine":[${'1e20,'.repeat(100_000)}0]`))],
    ],
    'a description that becomes too long with the numbers counted here': [
      [
        offer,
        offerOf({ description: { ...description, machine: 'x'.repeat((1 << 20) - plainBytes) }, tag: null }),
      ],
    ],
    'a description of 20,000 nested arrays': [
      [
        offer,
        jsonOffer(
          offerJson.replace('"machine":null', `"machine":${'['.repeat(20_000)}${']'.repeat(20_000)}`),
        ),
      ],
    ],
    'half an identity': [[offer, validOffer], 'wait have', [chunks, Buffer.alloc(43)]],
    'more identities than fit one message': [
      [offer, validOffer],
      'wait have',
      [chunks, Buffer.concat([words(BLAKE3), Buffer.alloc(40 * 5000, 1)])],
    ],
    'a list of chunks without the ID of its digests': [
      [offer, validOffer],
      'wait have',
      [chunks, identities.subarray(4)],
    ],
    'digests of an unknown ID': [
      [offer, validOffer],
      'wait have',
      [chunks, Buffer.concat([words(DIGESTS.length), identities.subarray(4)])],
    ],
    'digests of another ID than it announces': [
      ...[[offer, validOffer], 'wait have', [chunks, Buffer.concat([words(SHA256), identities.subarray(4)])]],
      ...[[offered, nothing], 'wait need', [pages, rawPages]],
    ] as Step[],
    'a block before the pages': [...until, [blocks, block(0, 1)]],
    'a block without pages': [...arrived, [blocks, block()]],
    'a truncated block': [...arrived, [blocks, block(0, 1).subarray(0, 70)]],
    'a truncated second block': [
      ...arrived,
      [blocks, Buffer.concat([block(0, 1), block(0)]).subarray(0, 100)],
    ],
    'a block with a chunk that was not offered': [...arrived, [blocks, block(0, 2)]],
    'more blocks than fit one message': [
      ...arrived,
      [blocks, Buffer.concat(Array.from({ length: 33 }, () => block(0)))],
    ],
    'a layout of a region that does not exist': [...stored, [layout, words(1, 0, 0)]],
    'a block beyond the end of its region': [...stored, [layout, words(0, 1, 0)]],
    'a page beyond the end of its region': [...arrived, [blocks, block(0, 1, 0)], [layout, words(0, 0, 0)]],
    'a block that is placed twice': [...stored, [layout, words(0, 0, 0, 0, 0)]],
    'a block that is placed twice, in two messages': [
      ...stored,
      [layout, words(0, 0, 0)],
      [layout, words(0, 0, 0)],
    ],
    'a layout with a block that was not sent': [...stored, [layout, words(0, 0, 1)]],
    'a truncated layout': [...stored, [layout, words(0, 0)]],
    'an end without a layout': [...stored, [MessageType.done, nothing]],
    'pages before they were requested': [...upTo, [pages, Buffer.alloc(100)]],
    'a page that was not requested': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 2), content])],
    ],
    'a message that is not full before the last': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 1, 0, 0]), words(0), content.subarray(0, 4096)])],
    ],
    'a count of 200 pages': [...until, [pages, Buffer.concat([Buffer.from([0, 200, 0, 0]), words(0)])]],
    'an empty message of pages': [...until, [pages, Buffer.alloc(0)]],
    ...Object.fromEntries(
      DIGESTS.map(({ name }, id): [string, Step[]] => [
        `a page that does not have its announced ${name}`,
        [
          ...[[offer, validOffer], 'wait have', [chunks, listOf(id)], [offered, nothing], 'wait need'],
          [
            pages,
            Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), content.subarray(0, 4096), noise(2, 1)]),
          ],
        ] as Step[],
      ]),
    ),
    'pages of a wrong length': [
      ...until,
      [pages, Buffer.concat([Buffer.from([0, 2, 0, 0]), words(0, 1), Buffer.alloc(9000)])],
    ],
    'a decompression bomb': [
      ...until,
      [pages, Buffer.concat([Buffer.from([1, 2, 0, 0]), words(0, 1), Buffer.alloc(8000, 255)])],
    ],
    'unknown flags': [...until, [pages, Buffer.concat([Buffer.from([9, 2, 0, 0]), words(0, 1), content])]],
    'an end before all pages were sent': [...until, [sent, Buffer.alloc(0)]],
    'an error that is not JSON': [[error, Buffer.from('!')]],
    'an error of 1 MiB': [[error, Buffer.from(JSON.stringify({ message: 'x'.repeat(1 << 20) }))]],
    'a second hello': [[MessageType.hello, Buffer.alloc(12)]],
    'an error with an unknown code': [[error, Buffer.from('{"code":"__proto__","message":5}')]],
  };

  async function play(theirs: Channel, steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (step === 'wait have') await theirs.receive(have);
      else if (step === 'wait need') await theirs.receive(need);
      else await theirs.send(...step);
    }
  }

  const one = (id: number, chunk: number): Step => {
    const at = 4 + 40 * chunk;
    return [chunks, Buffer.concat([words(id), listOf(id).subarray(at, at + 40)])];
  };
  const lists: Record<string, Step[]> = {
    'with digests of one ID': [[chunks, identities]],
    'with an older digest': [[chunks, listOf(SHA256)]],
    'with digests of two IDs': [one(BLAKE3, 0), one(SHA256, 1)],
  };
  for (const [what, given] of Object.entries(lists))
    it(`accepts a valid sequence of messages ${what}`, async function () {
      const { store } = newStore(this);
      const [mine, theirs] = localChannels();
      const received = store.receiveCopy(mine, silent);
      const rest = stored.filter((step) => step[0] !== chunks && step[0] !== offer && step !== 'wait have');
      const all: Step[] = [[offer, validOffer], 'wait have', ...given, ...rest];
      for (const step of [...all, [layout, words(0, 0, 0)], [placed, nothing]] as Step[]) {
        if (step === 'wait have') await theirs.receive(have);
        else if (step === 'wait need') assert.deepEqual([...(await theirs.receive(need)).bytes], [3]);
        else await theirs.send(...step);
      }
      await received;
      assert.deepEqual(await load(store, ID), { file: content });
      await requireSound(store);
    });

  it('accepts a description of nearly 1 MiB', async function () {
    const { store } = newStore(this);
    const [mine, theirs] = localChannels();
    const received = store.receiveCopy(mine, silent);
    received.catch(() => {});
    const machine = 'x'.repeat((1 << 20) - 1000);
    const long = offerOf({ description: { ...description, machine }, tag: null });
    await play(theirs, [[offer, long], ...stored.slice(1), [layout, words(0, 0, 0)], [placed, nothing]]);
    await received;
    const snapshot = await store.openSnapshot(ID);
    snapshot.close();
    assert.equal(snapshot.metadata.machine, machine);
  });

  it('needs little memory per offered chunk', async function () {
    const { dir } = newStore(this);
    const child = spawn(process.execPath, ['--max-old-space-size=48', MAIN, 'serve-store', '--store', dir], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit');
    const channel = new StreamChannel(child.stdout!, child.stdin!);
    await channel.send(MessageType.hello, encodeHello());
    await channel.receive(MessageType.hello);
    await channel.send(MessageType.request, Buffer.from('{"verb": "receive"}'));
    await channel.send(offer, validOffer);
    await channel.receive(have);
    const messages = 150;
    for (let i = 0; i < messages; i++) await channel.send(chunks, words(BLAKE3), randomBytes(4096 * 40));
    await channel.send(offered);
    const { bytes } = await channel.receive(need);
    assert.equal(bytes.length, (messages * 4096) / 8);
    assert.ok(bytes.every((byte) => byte === 255));
    channel.close();
    await ended;
  });

  for (const [what, steps] of Object.entries(violations))
    it(`refuses ${what}`, async function () {
      const { store } = newStore(this);
      const [mine, theirs] = localChannels();
      const received = store.receiveCopy(mine, silent);
      received.catch(() => {});
      await play(theirs, steps);
      await assert.rejects(received, { code: 'REMOTE_FAILED' });
      assert.deepEqual(store.list(), []);
      await store.gc({ dryRun: false });
      assert.equal(store.stats().storedBytes, newStore(this).store.stats().storedBytes);
    });

  it('refuses random bytes', async function () {
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
