import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import type { FrameInput } from '../../../../src/native/frame-slots.js';
import { loadNativePageOps, loadPortablePageOps, type PageOps } from '../../../../src/native/pages.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import { BLAKE3, DIGEST_BYTES, DIGESTS, digestsOf } from '../../../../src/store/pack/digest.js';
import {
  acquireFrameSlots,
  compression,
  type FrameSlot,
  PortableFrameSlot,
  releaseFrameSlots,
} from '../../../../src/store/pack/frame-encoder.js';
import {
  decodeFrame,
  Effort,
  FRAME_BYTES,
  FRAME_CHUNKS,
  FrameFlag,
  frameBytes,
} from '../../../../src/store/pack/pack-format.js';
import { textPages } from '../../../store/scratch.js';

/** Pages that compress well, badly, or only in part. */
const page = fc.oneof(
  fc.constant(null).map(() => randomBytes(PAGE_BYTES)),
  fc.integer({ min: 1, max: 255 }).map((byte) => Buffer.alloc(PAGE_BYTES, byte)),
  fc.string({ minLength: 1, maxLength: 40 }).map((text) => Buffer.alloc(PAGE_BYTES, `${text}.`)),
  fc.nat(PAGE_BYTES).map((noise) => Buffer.concat([randomBytes(noise), Buffer.alloc(PAGE_BYTES - noise)])),
);
const GIVEN = Buffer.alloc(DIGEST_BYTES, 7);

interface Encoded {
  readonly frame: Uint8Array;
  readonly flags: number;
  readonly storedBytes: number;
  readonly digests: Uint8Array;
}

function encode(slot: FrameSlot, pages: readonly Uint8Array[], input: FrameInput): Encoded {
  pages.forEach((bytes, i) => {
    slot.raw.set(bytes, i * PAGE_BYTES);
    if ((input.hashed & (1 << i)) === 0) slot.digests.set(GIVEN, i * DIGEST_BYTES);
  });
  slot.submit(input);
  const { flags, storedBytes } = slot.wait();
  return {
    flags,
    storedBytes,
    frame: slot.frame(frameBytes({ chunks: pages.length, storedBytes })).slice(),
    digests: slot.digests.slice(0, pages.length * DIGEST_BYTES),
  };
}

describe('a frame', () => {
  let native: PageOps;
  let portable: PageOps;
  let slots: FrameSlot[];
  before(async () => {
    native = loadNativePageOps();
    portable = await loadPortablePageOps();
    slots = acquireFrameSlots(native);
  });
  after(() => releaseFrameSlots(slots));

  it('is encoded by native threads', () => {
    assert.ok(slots.length > 1 && !(slots[0] instanceof PortableFrameSlot));
  });

  it('is the same whoever encodes it, with the same digests, and is read back by both', () => {
    fc.assert(
      fc.property(
        fc.array(page, { minLength: 1, maxLength: FRAME_CHUNKS }),
        fc.nat(0xffff),
        fc.constantFrom(0, FrameFlag.manifest),
        fc.record({ pack: fc.nat(0xffffffff), index: fc.nat(0x7fff) }),
        fc.constantFrom(Effort.fast, Effort.high),
        fc.constantFrom(...DIGESTS.keys()),
        (pages, hashed, flags, place, effort, digest) => {
          const chunks = pages.length;
          const numbers = Uint32Array.from(pages, (_, i) => 3 * i);
          const input = { flags, ...compression(chunks, effort), numbers, hashed, digest, ...place };
          const results = [slots[0]!, new PortableFrameSlot(native), new PortableFrameSlot(portable)].map(
            (slot) => encode(slot, pages, input),
          );
          assert.deepEqual(results[0], results[1], 'the same code compresses both');
          for (const { frame, digests, ...entry } of results) {
            pages.forEach((bytes, i) => {
              const expected = (hashed & (1 << i)) === 0 ? GIVEN : digestsOf(portable, digest, bytes, 1);
              assert.deepEqual(
                Buffer.from(digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)),
                expected,
              );
            });
            for (const ops of [native, portable]) {
              const raw = new Uint8Array(FRAME_BYTES);
              const row = { ...entry, offset: 0, first: 0, chunks };
              decodeFrame(ops, frame, row, numbers, place.pack, place.index, raw, 'a pack');
              assert.ok(Buffer.concat(pages).equals(raw.subarray(0, chunks * PAGE_BYTES)));
            }
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('is smaller with a high effort', () => {
    const text = textPages(1, FRAME_CHUNKS);
    const pages = Array.from({ length: FRAME_CHUNKS }, (_, i) =>
      text.subarray(i * PAGE_BYTES).subarray(0, PAGE_BYTES),
    );
    const numbers = Uint32Array.from(pages, (_, i) => i);
    const [fast, high] = [Effort.fast, Effort.high].map((effort) =>
      encode(slots[0]!, pages, {
        ...{ flags: 0, ...compression(FRAME_CHUNKS, effort) },
        ...{ numbers, hashed: 0xffff, digest: BLAKE3, pack: 1, index: 0 },
      }),
    );
    assert.ok(high!.storedBytes < 0.95 * fast!.storedBytes, `${fast!.storedBytes} to ${high!.storedBytes}`);
    assert.equal(high!.flags, fast!.flags);
  });

  it('without a payload has its identities only, whoever encodes it', () => {
    const pages = [randomBytes(PAGE_BYTES)];
    const numbers = Uint32Array.of(9);
    const input = {
      flags: FrameFlag.lost,
      lz4Flag: 0,
      maxCompressed: 0,
      effort: 0,
      numbers,
      hashed: 0,
      digest: BLAKE3,
      pack: 1,
      index: 2,
    };
    const [mine, other] = [slots[1]!, new PortableFrameSlot(portable)].map((slot) =>
      encode(slot, pages, input),
    );
    assert.deepEqual(mine, other);
    assert.deepEqual([mine!.storedBytes, mine!.flags], [0, FrameFlag.lost]);
  });

  it('is encoded beside others, each in its slot', () => {
    const pages = slots.map(() => Array.from({ length: FRAME_CHUNKS }, () => randomBytes(PAGE_BYTES)));
    const numbers = Uint32Array.from({ length: FRAME_CHUNKS }, (_, i) => i);
    for (let round = 0; round < 20; round++) {
      slots.forEach((slot, i) => {
        pages[i]!.forEach((bytes, chunk) => void slot.raw.set(bytes, chunk * PAGE_BYTES));
        slot.submit({
          flags: 0,
          ...compression(FRAME_CHUNKS),
          numbers,
          hashed: 0xffff,
          digest: BLAKE3,
          pack: i + 1,
          index: round,
        });
      });
      slots.forEach((slot, i) => {
        const { flags, storedBytes } = slot.wait();
        assert.ok(slot.isEncoded);
        const row = { offset: 0, first: 0, chunks: FRAME_CHUNKS, flags, storedBytes };
        const raw = new Uint8Array(FRAME_BYTES);
        decodeFrame(native, slot.frame(frameBytes(row)), row, numbers, i + 1, round, raw, 'a pack');
        assert.ok(Buffer.concat(pages[i]!).equals(raw));
      });
    }
  });

  it('that is being encoded when its Worker ends harms nobody', async () => {
    const code = `
      const { acquireFrameSlots, compression } = await import(${JSON.stringify(new URL('../../../../src/store/pack/frame-encoder.js', import.meta.url).href)});
      const { loadNativePageOps } = await import(${JSON.stringify(new URL('../../../../src/native/pages.js', import.meta.url).href)});
      const { parentPort } = await import('node:worker_threads');
      const numbers = Uint32Array.from({ length: 16 }, (_, i) => i);
      for (const slot of acquireFrameSlots(loadNativePageOps()))
        slot.submit({ flags: 0, ...compression(16), numbers, hashed: 0xffff, digest: 1, pack: 1, index: 0 });
      parentPort.postMessage('submitted');
      setInterval(() => {}, 1000);`;
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
      await once(worker, 'message');
      await worker.terminate();
    }
    const pages = [Buffer.alloc(PAGE_BYTES, 1)];
    const numbers = Uint32Array.of(0);
    const input = { flags: 0, ...compression(1), numbers, hashed: 1, digest: BLAKE3, pack: 1, index: 0 };
    assert.deepEqual(encode(slots[2]!, pages, input), encode(new PortableFrameSlot(native), pages, input));
  });
});
