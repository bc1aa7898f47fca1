import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { loadNativePageOps, loadPortablePageOps, type PageOps } from '../../../../src/native/pages.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import {
  BLAKE3,
  DEFAULT_DIGEST,
  DIGEST_BYTES,
  DIGESTS,
  digestsOf,
  hasDigest,
  requireKnownDigest,
  SHA256,
} from '../../../../src/store/pack/digest.js';
import {
  decodeFooter,
  decodePackHeader,
  encodeFooter,
  encodePackHeader,
  FOOTER_BYTES,
  type PackFooter,
} from '../../../../src/store/pack/pack-format.js';
import { noise } from '../../../store/scratch.js';

const FILE = 'packs/00000001-3.pack';
const PACK = { number: 1, generation: 3 };

describe('a digest', () => {
  let native: PageOps;
  let both: PageOps[];
  before(async () => {
    native = loadNativePageOps();
    both = [native, await loadPortablePageOps()];
  });

  const footer: PackFooter = {
    ...{ ...PACK, frames: 1, chunks: 1, effort: 1, digest: BLAKE3, trailerOffset: 100 },
    ...{ tablesChecksum: 5n, identitiesChecksum: 6n },
  };
  const fileBytes = 100 + 16 + 44 + FOOTER_BYTES;

  it('has a fixed ID, because packs and copies name it', () => {
    assert.deepEqual(
      DIGESTS.map(({ name }) => name),
      ['SHA-256', 'BLAKE3'],
    );
    assert.deepEqual([SHA256, BLAKE3, DEFAULT_DIGEST], [0, 1, 1]);
  });

  for (const [id, { name }] of DIGESTS.entries())
    it(`is the same by native and by portable code, of several pages as of one: ${name}`, () => {
      const pages = noise(1, 21);
      for (const ops of both) {
        const all = digestsOf(ops, id, pages, 21);
        for (let i = 0; i < 21; i++) {
          const page = pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
          const digest = all.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES);
          if (id === SHA256) assert.deepEqual(digest, createHash('sha256').update(page).digest());
          assert.ok(both.every((other) => hasDigest(other, id, page, digest)));
          digest[31]! ^= 1;
          assert.ok(!hasDigest(ops, id, page, digest));
        }
      }
    });

  it('that is unknown is refused by its ID, as a newer format', () => {
    for (const id of [DIGESTS.length, 255, 65535])
      assert.throws(() => requireKnownDigest(id, FILE), {
        code: 'NEWER_FORMAT',
        message: `${FILE}: its digests have ID ${id}, which this livesnap does not know`,
        hint: 'Update livesnap on this host.',
      });
  });

  it('is named by a pack of version 2, so that an earlier livesnap refuses the pack; version 1 has SHA-256', () => {
    for (const [digest, version] of [
      [SHA256, 1],
      [BLAKE3, 2],
    ] as const) {
      const header = encodePackHeader(native, PACK, digest);
      assert.equal(Buffer.from(header).readUInt32LE(8), version);
      decodePackHeader(native, header, PACK, FILE);
      const bytes = encodeFooter(native, { ...footer, digest });
      assert.equal(Buffer.from(bytes).readUInt32LE(8), version);
      assert.deepEqual(decodeFooter(native, bytes, PACK, fileBytes, FILE), { ...footer, digest });
    }
  });

  it('is SHA-256 in a pack of version 1 whatever the upper half of its effort', () => {
    const bytes = Buffer.from(encodeFooter(native, { ...footer, digest: SHA256 }));
    bytes.writeUInt32LE(0x10001, 28);
    native.checksum(bytes, 0, 56, 0, 0, bytes.subarray(56));
    const { digest, effort } = decodeFooter(native, bytes, PACK, fileBytes, FILE);
    assert.deepEqual([digest, effort], [SHA256, 0x10001]);
  });

  it('that is unknown makes a pack of a newer format, and damage while the checksum of the footer is wrong', () => {
    const bytes = Buffer.from(encodeFooter(native, { ...footer, digest: 9 }));
    assert.throws(() => decodeFooter(native, bytes, PACK, fileBytes, FILE), {
      code: 'NEWER_FORMAT',
      message: `${FILE}: its digests have ID 9, which this livesnap does not know`,
    });
    bytes[40]! ^= 1;
    assert.throws(() => decodeFooter(native, bytes, PACK, fileBytes, FILE), {
      message: 'the footer does not match its checksum',
    });
  });
});
