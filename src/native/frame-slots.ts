/**
 * Slots in which native threads encode frames of packs: digests, LZ4 block, head and checksum (addon/frame_encoder.h).
 *
 * Invariant: a slot is not written to between {@link submitFrame} and its end.
 */
import { addon } from './addon.js';
import { discardBytes } from './heap.js';

declare const brand: unique symbol;
/** The slots of one call of {@link createFrameSlots}. */
interface Handle {
  readonly [brand]: 'frame slots';
}

interface SlotLayout {
  readonly slotBytes: number;
  readonly numbers: number;
  readonly digests: number;
  readonly frame: number;
  readonly raw: number;
}

interface FrameFunctions {
  readonly frameSlotLayout: SlotLayout;
  frameSlots(count: number): [Handle, ArrayBuffer] | null;
  frameSubmit(slots: Handle, slot: number, wake: boolean): void;
  frameWait(slots: Handle, slot: number): void;
}

/** Words of a slot (struct FrameSlot). */
const Word = {
  state: 0,
  storedBytes: 1,
  flags: 2,
  chunks: 3,
  hashed: 4,
  lz4Flag: 5,
  maxCompressed: 6,
  pack: 7,
  index: 8,
  effort: 9,
  digest: 10,
} as const;
const WORDS = 11;
/**
 * Sleeping threads are woken for so many frames at once: on a virtual machine, waking one takes as long as encoding half a
 * frame. Whoever waits for a frame encodes it if no thread has begun.
 */
const FRAMES_PER_WAKE = 4;
const SUBMITTED = 1;

/** A frame that is to be encoded: the fields of struct FrameSlot that its caller sets. */
export interface FrameInput {
  /** Without that of a codec. */
  readonly flags: number;
  readonly lz4Flag: number;
  /** A longer LZ4 block is not used; 0: the frame has no payload. */
  readonly maxCompressed: number;
  /** Of the chunks in the pack, 16 bits each. */
  readonly numbers: Uint32Array;
  /** Bit i: the digest of chunk i is computed. The others are in the slot already. */
  readonly hashed: number;
  /** The ID of the digest (digest.ts). */
  readonly digest: number;
  readonly pack: number;
  readonly index: number;
  /** Of the compression (pack-format.ts). */
  readonly effort: number;
}

export class FrameSlot {
  /** The chunks, uncompressed. */
  readonly raw: Uint8Array;
  /** One for each chunk. */
  readonly digests: Uint8Array;
  readonly #frame: Uint8Array;
  readonly #words: Uint32Array;
  readonly #numbers: Uint16Array;

  constructor(
    readonly slots: Handle,
    readonly number: number,
    buffer: ArrayBuffer,
    layout: SlotLayout,
    frameBytes: number,
    chunks: number,
  ) {
    const at = number * layout.slotBytes;
    this.raw = new Uint8Array(buffer, at + layout.raw, layout.slotBytes - layout.raw);
    this.digests = new Uint8Array(buffer, at + layout.digests, layout.frame - layout.digests);
    this.#frame = new Uint8Array(buffer, at + layout.frame, frameBytes);
    this.#words = new Uint32Array(buffer, at, WORDS);
    this.#numbers = new Uint16Array(buffer, at + layout.numbers, chunks);
  }

  submit(input: FrameInput): void {
    const { flags, lz4Flag, maxCompressed, numbers, hashed, digest, pack, index, effort } = input;
    const words = this.#words;
    words[Word.flags] = flags;
    words[Word.chunks] = numbers.length;
    words[Word.hashed] = hashed;
    words[Word.lz4Flag] = lz4Flag;
    words[Word.maxCompressed] = maxCompressed;
    words[Word.pack] = pack;
    words[Word.index] = index;
    words[Word.effort] = effort;
    words[Word.digest] = digest;
    this.#numbers.set(numbers);
    addon<FrameFunctions>().frameSubmit(
      this.slots,
      this.number,
      index % FRAMES_PER_WAKE === FRAMES_PER_WAKE - 1,
    );
  }

  get isEncoded(): boolean {
    return Atomics.load(this.#words, Word.state) !== SUBMITTED;
  }

  /** Blocks until the frame is encoded. */
  wait(): { readonly flags: number; readonly storedBytes: number } {
    addon<FrameFunctions>().frameWait(this.slots, this.number);
    return { flags: this.#words[Word.flags]!, storedBytes: this.#words[Word.storedBytes]! };
  }

  /** The encoded frame: head, chunk numbers, payload. */
  frame(bytes: number): Uint8Array {
    return this.#frame.subarray(0, bytes);
  }

  /** Gives its memory back to the kernel. No thread may be encoding it. */
  discard(): void {
    discardBytes(this.#frame);
    discardBytes(this.raw);
  }
}

/** `null`: this Node has no SHA-256 that the addon can call. Errors: SYSTEM. */
export function createFrameSlots(count: number, frameBytes: number, chunks: number): FrameSlot[] | null {
  const { frameSlots, frameSlotLayout: layout } = addon<FrameFunctions>();
  const made = frameSlots(count);
  if (made === null) return null;
  const [slots, buffer] = made;
  return Array.from({ length: count }, (_, i) => new FrameSlot(slots, i, buffer, layout, frameBytes, chunks));
}
