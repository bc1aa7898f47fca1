import assert from 'node:assert/strict';
import { hash } from 'node:crypto';
import { MissingChunks } from '../../../../src/store/copy/missing-chunks.js';
import { isSet } from '../../../../src/store/copy/protocol.js';
import { BLAKE3, SHA256 } from '../../../../src/store/pack/digest.js';

describe('missing chunks', () => {
  const digest = (i: number): Buffer => Buffer.alloc(32, i);

  for (const count of [1, 15, 16, 17, 40])
    it(`keep the ID of each digest, and a SHA-256 over the digests of 16: ${count} chunks`, () => {
      const missing = new MissingChunks();
      const ids = Array.from({ length: count }, (_, i) => (i % 3 === 1 ? SHA256 : BLAKE3));
      ids.forEach((id, i) => void missing.add(5 * i, id, digest(i)));
      missing.end();
      assert.equal(missing.count, count);
      for (let frame = 0; 16 * frame < count; frame++) {
        const own = ids.slice(16 * frame, 16 * frame + 16);
        const proof = missing.frame(frame);
        assert.deepEqual([...proof.ids], own);
        const digests = Buffer.concat(own.map((_, i) => digest(16 * frame + i)));
        assert.deepEqual(Buffer.from(proof.digest), hash('sha256', digests, 'buffer'));
      }
    });

  it('are found by number, and are one bit each', () => {
    const missing = new MissingChunks();
    for (const number of [0, 7, 8, 100_000]) missing.add(number, BLAKE3, digest(1));
    missing.end();
    assert.deepEqual(
      [0, 1, 8, 9].map((number) => missing.next(number)),
      [0, 7, 8, 100_000],
    );
    const bits = missing.bits(100_001);
    assert.equal(bits.length, 12_501);
    assert.deepEqual(
      Array.from({ length: 100_001 }, (_, i) => i).filter((i) => isSet(bits, i)),
      [0, 7, 8, 100_000],
    );
  });
});
