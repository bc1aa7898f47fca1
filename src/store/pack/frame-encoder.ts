/**
 * Encodes frames: the digest of each chunk, the payload, and the head (docs/format.md, "Frames").
 *
 * A frame is gathered in a slot, submitted, and taken when it is encoded. With the addon, native threads encode several
 * slots at once (native/frame-slots.ts). Without it, a slot is encoded when it is submitted.
 *
 * Thread: any. Each thread keeps slots for the next pack.
 */
import { createFrameSlots, type FrameInput } from '../../native/frame-slots.js';
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { CODECS, DEFAULT_CODEC, LZ4, RAW } from './codec.js';
import { DIGEST_BYTES, DIGESTS } from './digest.js';
import {
  codecFlags,
  Effort,
  encodeFrameHead,
  FRAME_BYTES,
  FRAME_CHUNKS,
  MAX_FRAME_BYTES,
  payloadOffset,
} from './pack-format.js';

/** Enough for the native threads to have work while the caller writes a mebibyte of frames. */
const NATIVE_SLOTS = 32;

export interface FrameSlot {
  /** The chunks, uncompressed. */
  readonly raw: Uint8Array;
  /** One for each chunk. */
  readonly digests: Uint8Array;
  /** Begins to encode the frame. Until it is taken, `raw` may be read only. */
  submit(input: FrameInput): void;
  readonly isEncoded: boolean;
  /** Blocks until the frame is encoded. */
  wait(): { readonly flags: number; readonly storedBytes: number };
  /** The first bytes of the encoded frame. */
  frame(bytes: number): Uint8Array;
  /** Gives its memory back to the kernel until it is used again. */
  discard(): void;
}

/** What a frame needs that is compressed, if that saves a sixteenth: raw frames are faster to read. */
export const compression = (
  chunks: number,
  effort: Effort = Effort.fast,
): Pick<FrameInput, 'lz4Flag' | 'maxCompressed' | 'effort'> => ({
  lz4Flag: codecFlags(DEFAULT_CODEC),
  maxCompressed: chunks * PAGE_BYTES - ((chunks * PAGE_BYTES) >> 4),
  effort,
});

export class PortableFrameSlot implements FrameSlot {
  readonly raw = new Uint8Array(FRAME_BYTES);
  readonly digests = new Uint8Array(FRAME_CHUNKS * DIGEST_BYTES);
  readonly isEncoded = true;
  readonly #frame = new Uint8Array(MAX_FRAME_BYTES);
  #result = { flags: 0, storedBytes: 0 };

  constructor(readonly ops: PageOps) {}

  submit({ flags, maxCompressed, numbers, hashed, digest, pack, index, effort }: FrameInput): void {
    const chunks = numbers.length;
    for (let i = 0; i < chunks; i++)
      if ((hashed & (1 << i)) !== 0)
        DIGESTS[digest]!.compute(
          this.ops,
          this.raw.subarray(i * PAGE_BYTES),
          1,
          this.digests.subarray(i * DIGEST_BYTES),
        );
    this.#result =
      maxCompressed === 0
        ? { flags, storedBytes: 0 }
        : this.#pack(flags, chunks, maxCompressed, effort !== Effort.fast);
    encodeFrameHead(
      this.ops,
      this.#frame,
      { ...this.#result, offset: 0, first: 0, chunks },
      numbers,
      pack,
      index,
    );
  }

  #pack(
    flags: number,
    chunks: number,
    maxCompressed: number,
    isHigh: boolean,
  ): { flags: number; storedBytes: number } {
    const compress = (codec: number, maxBytes: number): number =>
      CODECS[codec]!.compress(
        this.ops,
        this.raw,
        chunks * PAGE_BYTES,
        this.#frame,
        payloadOffset(chunks),
        maxBytes,
        isHigh,
      );
    const storedBytes = compress(DEFAULT_CODEC, maxCompressed);
    return storedBytes > 0
      ? { flags: flags | codecFlags(DEFAULT_CODEC), storedBytes }
      : { flags: flags | codecFlags(RAW), storedBytes: compress(RAW, chunks * PAGE_BYTES) };
  }

  wait(): { readonly flags: number; readonly storedBytes: number } {
    return this.#result;
  }

  frame(bytes: number): Uint8Array {
    return this.#frame.subarray(0, bytes);
  }

  discard(): void {} // V8 frees it
}

/** Slots that no pack uses. */
const idle: FrameSlot[][] = [];

/** Returns slots with any content. Give them back with {@link releaseFrameSlots} when none is being encoded. */
export function acquireFrameSlots(ops: PageOps): FrameSlot[] {
  if (ops.name !== 'native' || DEFAULT_CODEC !== LZ4) return [new PortableFrameSlot(ops)];
  return (
    idle.pop() ??
    createFrameSlots(NATIVE_SLOTS, MAX_FRAME_BYTES, FRAME_CHUNKS) ?? [new PortableFrameSlot(ops)]
  );
}

/** Gives the memory of the slots that this thread keeps back to the kernel. */
export function discardIdleSlots(): void {
  for (const slots of idle) for (const slot of slots) slot.discard();
}

export function releaseFrameSlots(slots: FrameSlot[]): void {
  if (slots.length === NATIVE_SLOTS && idle.length === 0) idle.push(slots);
}
