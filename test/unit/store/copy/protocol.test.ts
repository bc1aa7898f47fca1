/** The bytes of each message, as in docs/copy.md. Hostile sequences of messages: test/store/copy-protocol.test.ts. */
import assert from 'node:assert/strict';
import { LivesnapError } from '../../../../src/errors.js';
import {
  decodeBlocks,
  decodeChunks,
  decodeDone,
  decodeError,
  decodeFlag,
  decodeHeader,
  decodeLayout,
  decodeNeed,
  decodeOffer,
  decodePages,
  decodeRequest,
  encodeBlock,
  encodeDone,
  encodeError,
  encodeFlag,
  encodeHeader,
  encodeHello,
  encodeLayout,
  encodeOffer,
  encodePages,
  encodeRequest,
  IdentityList,
  MessageType,
  requireHello,
  ZERO_PAGE,
} from '../../../../src/store/copy/protocol.js';
import { BLAKE3, DIGESTS, SHA256 } from '../../../../src/store/pack/digest.js';
import type { SnapshotDescription } from '../../../../src/store/snapshot/description.js';

const words = (...values: number[]): Buffer => Buffer.from(Uint32Array.from(values).buffer);
const joined = (parts: Uint8Array[]): Buffer => Buffer.concat(parts);
const refused = { code: 'REMOTE_FAILED' };

const description: SnapshotDescription = {
  ...{
    id: 'ab'.repeat(16),
    kind: 'file' as const,
    vm: null,
    parent: null,
    createdAt: '2026-01-01T00:00:00.000Z',
  },
  ...{ memoryBytes: 4096, diskBytes: 0, packBytes: 0, machine: null, host: null },
  regions: [{ name: 'file', sizeBytes: 4096, nonZeroPages: 1 }],
};

describe('the copy protocol', () => {
  it('has a header of length, type and three zeros', () => {
    const header = encodeHeader(MessageType.pages, 0x1234);
    assert.deepEqual(header, Buffer.from('3412000008000000', 'hex'));
    assert.deepEqual(decodeHeader(header), { type: MessageType.pages, length: 0x1234 });
    for (const bad of ['0000000000000000', '0000000011000000', '0000000004010000', '0000000004000001'])
      assert.throws(() => decodeHeader(Buffer.from(bad, 'hex')), refused, bad);
  });

  it('begins with a magic and the version, and names an unsupported version', () => {
    const hello = encodeHello();
    assert.deepEqual(hello, Buffer.concat([Buffer.from('LIVESNAP'), words(2)]));
    requireHello(hello);
    for (const version of [1, 3]) {
      hello[8] = version;
      assert.throws(() => requireHello(hello), {
        ...refused,
        message: `the remote uses copy protocol version ${version}; this livesnap uses 2`,
        hint: 'Use the same livesnap version at both ends.',
      });
    }
    assert.throws(() => requireHello(Buffer.from('Welcome host')), {
      ...refused,
      message: /does not speak the copy protocol/,
    });
  });

  it('encodes requests as JSON', () => {
    for (const request of [
      { verb: 'send', ref: 'a' },
      { verb: 'receive' },
      { verb: 'list' },
      { verb: 'end' },
    ] as const) {
      assert.deepEqual(JSON.parse(`${encodeRequest(request)}`), request);
      assert.deepEqual(decodeRequest(encodeRequest(request)), request);
    }
    for (const bad of ['', '5', 'null', '{}', '{"verb":"send"}', '{"verb":"send","ref":5}', '{"verb":"x"}'])
      assert.throws(() => decodeRequest(Buffer.from(bad)), refused, bad);
  });

  it('encodes an offer as description, tags and state', () => {
    const state = Buffer.from('state');
    const offerOf = (header: object): Buffer => {
      const json = JSON.stringify({ description, ...header });
      return Buffer.concat([words(json.length), Buffer.from(json), state]);
    };
    for (const [tags, tag] of [
      [[], null],
      [['a'], 'a'],
      [['a', 'b'], 'a'],
    ] as const) {
      const bytes = joined(encodeOffer({ description, tags, state }));
      assert.deepEqual(bytes, offerOf({ tag, tags }), 'an earlier livesnap takes the first tag');
      assert.deepEqual(decodeOffer(bytes), { description, tags, state, knowsTags: true });
    }
    for (const [tag, tags] of [
      [null, []],
      ['a', ['a']],
    ] as const)
      assert.deepEqual(decodeOffer(offerOf({ tag })), { description, tags, state, knowsTags: false });
    const many = (count: number): string[] => Array.from({ length: count }, (_, i) => `t${i}`);
    assert.equal(decodeOffer(offerOf({ tags: many(1024) })).tags.length, 1024);
    for (const tags of [many(1025), ['../x'], 'a', [null]])
      assert.throws(() => decodeOffer(offerOf({ tags })), refused, JSON.stringify(tags).slice(0, 20));
  });

  it('encodes the tags that were left out as a flag and one bit each, or a flag for an earlier source', () => {
    const tags = Array.from({ length: 9 }, (_, i) => `t${i}`);
    const offer = { description, state: Buffer.alloc(0), tags, knowsTags: true };
    const done = (skipped: string[], over = {}): Buffer =>
      Buffer.from(encodeDone({ ...offer, ...over }, new Set(skipped)));
    assert.deepEqual([...done([])], [0, 0, 0]);
    assert.deepEqual([...done(['t1', 't8'])], [1, 2, 1]);
    for (const skipped of [[], ['t0'], ['t1', 't8'], tags])
      assert.deepEqual(decodeDone(done(skipped), tags), skipped);
    assert.deepEqual([...done([], { tags: [] })], [0]);
    assert.deepEqual(decodeDone(done([], { tags: [] }), []), []);
    // Between this livesnap and an earlier one, which takes the first tag.
    const early = { tags: ['a'], knowsTags: false };
    assert.deepEqual([...done([], early)], [0]);
    assert.deepEqual([...done(['a'], early)], [1]);
    assert.deepEqual(decodeDone(Buffer.from([0]), ['a', 'b']), ['b']);
    assert.deepEqual(decodeDone(Buffer.from([1]), ['a', 'b']), ['a', 'b']);
    for (const bad of [0, 2, 4])
      assert.throws(() => decodeDone(Buffer.alloc(bad), tags), refused, `${bad} bytes`);
  });

  it('encodes a flag as one byte', () => {
    for (const flag of [true, false]) assert.equal(decodeFlag(Buffer.from(encodeFlag(flag))), flag);
    assert.deepEqual([...encodeFlag(true)], [1]);
  });

  it('encodes identities as the ID of their digests, then fingerprint and digest of each', () => {
    const list = new IdentityList();
    assert.ok(list.isEmpty);
    for (const i of [1, 2]) list.push(BLAKE3, Buffer.alloc(8, i), Buffer.alloc(32, 16 * i));
    assert.deepEqual([list.isFullFor(BLAKE3), list.isFullFor(SHA256)], [false, true]);
    const bytes = Buffer.from(list.take());
    assert.deepEqual([list.isEmpty, list.isFullFor(SHA256)], [true, false]);
    const hex = `01000000${'01'.repeat(8)}${'10'.repeat(32)}${'02'.repeat(8)}${'20'.repeat(32)}`;
    assert.equal(bytes.toString('hex'), hex);
    const { count, digestId, fingerprints, digests } = decodeChunks(bytes);
    assert.deepEqual([count, digestId], [2, BLAKE3]);
    assert.deepEqual(Buffer.from(fingerprints), Buffer.concat([Buffer.alloc(8, 1), Buffer.alloc(8, 2)]));
    assert.deepEqual(Buffer.from(digests), Buffer.concat([Buffer.alloc(32, 16), Buffer.alloc(32, 32)]));
    for (let i = 0; i < 4096; i++) list.push(SHA256, Buffer.alloc(8), Buffer.alloc(32));
    assert.ok(list.isFullFor(SHA256));
    const full = decodeChunks(Buffer.from(list.take()));
    assert.deepEqual([full.count, full.digestId], [4096, SHA256]);
    for (const bad of [0, 3, 4, 40, 43, 45, 4 + 4097 * 40])
      assert.throws(() => decodeChunks(Buffer.alloc(bad)), refused, `${bad} bytes`);
  });

  it('refuses digests of an unknown ID', () => {
    for (const id of [DIGESTS.length, 256, 0xffffffff]) {
      const bytes = Buffer.alloc(44);
      bytes.writeUInt32LE(id);
      assert.throws(() => decodeChunks(bytes), {
        code: 'REMOTE_FAILED',
        message: `the remote sent digests of ID ${id}, which this livesnap does not know`,
        hint: 'Use the same livesnap version at both ends.',
      });
    }
  });

  it('encodes needed chunks as one bit each', () => {
    assert.equal(decodeNeed(Buffer.alloc(2), 9).length, 2);
    for (const bad of [8, 17]) assert.throws(() => decodeNeed(Buffer.alloc(2), bad), refused);
  });

  it('encodes pages after their chunk numbers', () => {
    const payload = Buffer.alloc(8192, 7);
    const bytes = joined(encodePages({ isCompressed: false, numbers: [3, 0x10002], payload }));
    assert.deepEqual(bytes, Buffer.concat([Buffer.from([0, 2, 0, 0]), words(3, 0x10002), payload]));
    const decoded = decodePages(bytes);
    assert.deepEqual([...Array.from(decoded.numbers)], [3, 0x10002]);
    assert.deepEqual([decoded.isCompressed, decoded.payload], [false, payload]);
    assert.equal(encodePages({ isCompressed: true, numbers: [3], payload })[0]![0], 1);
    for (const bad of [
      [],
      [0, 0, 0, 0],
      [0, 17, 0, 0, ...Buffer.alloc(68)],
      [2, 1, 0, 0, 0, 0, 0, 0],
      [0, 1, 0],
    ])
      assert.throws(() => decodePages(Buffer.from(bad)), refused, `${bad}`);
  });

  it('encodes a block as one bit per page, then the chunk numbers', () => {
    const pages = new Uint32Array(512).fill(ZERO_PAGE);
    pages.set([5, ZERO_PAGE, 6]);
    pages[511] = 0;
    const bytes = joined(encodeBlock(pages));
    const bits = Buffer.alloc(64);
    [bits[0], bits[63]] = [0b101, 0b1000_0000];
    assert.deepEqual(bytes, Buffer.concat([bits, words(5, 6, 0)]));
    const decoded = [...decodeBlocks(Buffer.concat([bytes, bytes]))].map((block) => [...block]);
    assert.deepEqual(decoded, [[...pages], [...pages]]);
    const invalid = [
      bytes.subarray(0, -1),
      Buffer.alloc(68),
      Buffer.concat([bits, words(5, ZERO_PAGE, 0)]),
      Buffer.concat(Array.from({ length: 33 }, () => bytes)),
    ];
    for (const bad of invalid) assert.throws(() => [...decodeBlocks(bad)], refused);
  });

  it('encodes a layout as a region and pairs of block numbers', () => {
    const bytes = Buffer.from(encodeLayout({ region: 1, pairs: [0, 7, 2, 7] }));
    assert.deepEqual(bytes, words(1, 0, 7, 2, 7));
    assert.deepEqual(decodeLayout(bytes), { region: 1, pairs: [0, 7, 2, 7] });
    for (const bad of [0, 3, 8, 4 + 8 * 16_385])
      assert.throws(() => decodeLayout(Buffer.alloc(bad)), refused, `${bad} bytes`);
  });

  it('encodes an error with code and hint, and decodes any bytes as an error', () => {
    const { code, message, hint } = decodeError(
      encodeError(new LivesnapError('NO_SPACE', 'the disk is full', { hint: 'Free some.' })),
    );
    assert.deepEqual([code, message, hint], ['NO_SPACE', 'remote: the disk is full', 'Free some.']);
    assert.equal(decodeError(encodeError(new Error('x'))).message, 'remote: internal error: x');
    for (const odd of ['', 'null', '5', '"x"', '{"code":"__proto__"}', '{"message":{}}', '{"hint":5}'])
      assert.equal(decodeError(Buffer.from(odd)).code, 'REMOTE_FAILED', odd);
    const damage = {
      ...{ file: 'packs/1', offset: null, snapshot: 'a'.repeat(32), region: 'disk1' },
      ...{ fromBytes: 0, toBytes: 4096 },
    };
    const damaged = (sent: unknown) =>
      decodeError(Buffer.from(JSON.stringify({ code: 'DAMAGED', message: 'x', hint: null, damage: sent })));
    assert.deepEqual(decodeError(encodeError(new LivesnapError('DAMAGED', 'x', { damage }))).damage, damage);
    for (const odd of [5, {}, { ...damage, file: '\x1b[2J' }, { ...damage, region: 'a b' }])
      assert.equal(damaged(odd).damage, undefined, JSON.stringify(odd));
    const long = new LivesnapError('USAGE', 'x'.repeat(1 << 20), { hint: '"'.repeat(1 << 20) });
    assert.ok(encodeError(long).length < 64 << 10);
  });
});
