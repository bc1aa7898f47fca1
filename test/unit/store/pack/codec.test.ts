import assert from 'node:assert/strict';
import { pageOps } from '../../../../src/native/pages.js';
import { PAGE_BYTES } from '../../../../src/page-stream.js';
import { CODECS } from '../../../../src/store/pack/codec.js';
import {
  codecFlags,
  codecIdOf,
  decodeFrame,
  encodeFrameHead,
  FRAME_BYTES,
  FRAME_CHUNKS,
  type FrameEntry,
  FrameFlag,
  frameBytes,
  isValidFrame,
  payloadOffset,
} from '../../../../src/store/pack/pack-format.js';
import { noise, textPages } from '../../../store/scratch.js';

const FILE = 'packs/00000001-0.pack';
const NUMBERS = Uint32Array.from({ length: FRAME_CHUNKS }, (_, i) => i);

const entryOf = (flags: number, storedBytes: number, chunks = FRAME_CHUNKS): FrameEntry => ({
  offset: 32,
  storedBytes,
  first: 0,
  chunks,
  flags,
});

/** A frame with a right checksum. */
function frameOf(flags: number, payload: Uint8Array): { frame: Uint8Array; entry: FrameEntry } {
  const entry = entryOf(flags, payload.length);
  const frame = new Uint8Array(frameBytes(entry));
  frame.set(payload, payloadOffset(FRAME_CHUNKS));
  encodeFrameHead(pageOps, frame, entry, NUMBERS, 1, 0);
  return { frame, entry };
}

function decoded({ frame, entry }: ReturnType<typeof frameOf>): Buffer {
  const raw = Buffer.alloc(FRAME_BYTES);
  decodeFrame(pageOps, frame, entry, NUMBERS, 1, 0, raw, FILE);
  return raw;
}

function compressed(codec: number, raw: Buffer): Uint8Array {
  const target = new Uint8Array(2 * raw.length);
  const length = CODECS[codec]!.compress(pageOps, raw, raw.length, target, 0, target.length);
  return target.subarray(0, length);
}

describe('a codec', () => {
  for (const [id, { name }] of CODECS.entries()) {
    it(`gives back the chunks of a frame: ${id}, ${name}`, () => {
      for (const chunks of [textPages(1, FRAME_CHUNKS), noise(2, FRAME_CHUNKS)])
        assert.deepEqual(decoded(frameOf(codecFlags(id), compressed(id, chunks))), chunks);
    });

    it(`reports the payload as damaged when it gives too few bytes: ${id}, ${name}`, () => {
      for (const length of [1, FRAME_CHUNKS - 1]) {
        const payload = compressed(id, textPages(1, FRAME_CHUNKS).subarray(0, length * PAGE_BYTES));
        assert.throws(() => decoded(frameOf(codecFlags(id), payload)), {
          code: 'DAMAGED',
          message: `${FILE} at offset 32: the payload is not valid ${name} data`,
        });
      }
    });

    it(`returns 0 when the frame does not fit: ${id}, ${name}`, () => {
      const chunks = noise(1, FRAME_CHUNKS);
      const target = new Uint8Array(FRAME_BYTES);
      const maxBytes = FRAME_BYTES - 1;
      assert.equal(CODECS[id]!.compress(pageOps, chunks, FRAME_BYTES, target, 0, maxBytes), 0);
    });
  }

  it('that is unknown is refused by its id, as a newer format', () => {
    for (const id of [CODECS.length, 7, 255])
      assert.throws(() => decoded(frameOf(codecFlags(id), Buffer.alloc(100))), {
        code: 'NEWER_FORMAT',
        message: `${FILE} at offset 32: the frame is compressed by codec ${id}, which this livesnap does not know`,
        hint: 'Update livesnap on this host.',
      });
  });

  it('that is unknown is damage while the checksum of its frame is wrong', () => {
    const { frame, entry } = frameOf(codecFlags(7), Buffer.alloc(100));
    frame[0]! ^= 1;
    assert.throws(() => decoded({ frame, entry }), { code: 'DAMAGED' });
  });
});

describe('the flags of a frame', () => {
  it('hold every codec, and those of format version 1 as bit 0', () => {
    assert.deepEqual([codecFlags(0), codecFlags(1)], [0, 1]);
    for (let id = 0; id < 256; id++)
      for (const other of [0, FrameFlag.manifest]) assert.equal(codecIdOf(codecFlags(id) | other), id);
  });

  it('are refused with two codecs, and with a payload of a length that the codec cannot have', () => {
    assert.ok(isValidFrame(entryOf(0, FRAME_BYTES)));
    assert.ok(isValidFrame(entryOf(FrameFlag.lz4 | FrameFlag.manifest, 1)));
    assert.ok(isValidFrame(entryOf(codecFlags(7), 100)));
    assert.ok(isValidFrame(entryOf(FrameFlag.lost, 0)));
    for (const [flags, storedBytes] of [
      [codecFlags(7) | FrameFlag.lz4, 100],
      [1 << 8, 100],
      [0, FRAME_BYTES - 1],
      [0, 0],
      [FrameFlag.lz4, 0],
      [FrameFlag.lz4, FRAME_BYTES + 1],
      [codecFlags(7), FRAME_BYTES + 1],
      [FrameFlag.lost, 1],
      [FrameFlag.lost | FrameFlag.lz4, 0],
      [FrameFlag.lost | codecFlags(7), 0],
    ] as const)
      assert.ok(!isValidFrame(entryOf(flags, storedBytes)), `flags ${flags}, ${storedBytes} bytes`);
    for (const chunks of [0, FRAME_CHUNKS + 1])
      assert.ok(!isValidFrame(entryOf(0, chunks * PAGE_BYTES, chunks)), `${chunks} chunks`);
  });
});
