/**
 * Which chunks snapshots need: the marking that gc, check, show and stats share.
 *
 * A pack's chunks are a bitmap of 4 KiB at most, whatever the store holds; a manifest block that many snapshots share is
 * read once.
 */
import { DamageError, LostChunkError } from '../disk/damage.js';
import { CHUNK_ENTRY_BYTES, FRAME_ENTRY_BYTES, frameBytes, PACK_CHUNKS } from '../pack/pack-format.js';
import type { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import { readPlaces, readProvenPlaces } from './manifest.js';
import { BLOCK_PAGES, type Place, pagesOfBlock, type SnapshotFile } from './snapshot-file.js';

export function countBits(bytes: Iterable<number>): number {
  let count = 0;
  for (const byte of bytes) for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
}

/** So many chunks of a pack are a list: naming packs, which a hostile manifest does for nothing, costs little memory. */
const LISTED_CHUNKS = 64;

const bitmapOf = (chunks: readonly number[]): Uint8Array => {
  const bits = new Uint8Array(PACK_CHUNKS / 8);
  for (const chunk of chunks) bits[chunk >>> 3]! |= 1 << (chunk & 7);
  return bits;
};

export class ChunkSet {
  /** Chunk numbers while they are few, then a bit each. */
  readonly #packs = new Map<number, number[] | Uint8Array>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** False when it was there already, or cannot be in any pack. */
  add(pack: number, chunk: number): boolean {
    if (chunk >= PACK_CHUNKS) return false;
    if (this.has(pack, chunk)) return false;
    const known = this.#packs.get(pack);
    if (known === undefined) this.#packs.set(pack, [chunk]);
    else if (known instanceof Uint8Array) known[chunk >>> 3]! |= 1 << (chunk & 7);
    else if (known.length < LISTED_CHUNKS) known.push(chunk);
    else this.#packs.set(pack, bitmapOf([...known, chunk]));
    this.#size++;
    return true;
  }

  has(pack: number, chunk: number): boolean {
    const known = this.#packs.get(pack);
    if (known instanceof Uint8Array) return ((known[chunk >>> 3] ?? 0) & (1 << (chunk & 7))) !== 0;
    return known?.includes(chunk) ?? false;
  }

  /** One bit a chunk number, as they are now; undefined: none of the pack. */
  bits(pack: number): Uint8Array | undefined {
    const known = this.#packs.get(pack);
    return known instanceof Uint8Array || known === undefined ? known : bitmapOf(known);
  }

  /** How many of a pack's chunks are in the set. */
  count(pack: number): number {
    const known = this.#packs.get(pack) ?? [];
    return known instanceof Uint8Array ? countBits(known) : known.length;
  }

  packs(): Iterable<number> {
    return this.#packs.keys();
  }
}

export class Usage {
  /** Chunks that are pages, and chunks that are pages or manifest blocks. */
  readonly pages = new ChunkSet();
  readonly all = new ChunkSet();
  readonly #seen = new ChunkSet();
  readonly #places = new Uint32Array(BLOCK_PAGES * 2);

  constructor(readonly packs: PackSet) {}

  /**
   * Adds what a snapshot needs. Errors: DAMAGED when a block cannot be read that repair has not found lost; with
   * `readable` only what can be told for certain is added.
   */
  addSnapshot(file: SnapshotFile, { readable = false } = {}): void {
    for (const block of file.blocks) {
      this.#add(block.fingerprints);
      this.#add(block.places);
      if (this.#seen.has(block.places.pack, block.places.chunk)) continue;
      try {
        if (readable)
          readProvenPlaces(this.packs, block, pagesOfBlock(file.description.regions, block), this.#places);
        else readPlaces(this.packs, block, this.#places);
      } catch (error) {
        // Nobody can reach what a lost block referred to; repair has named the snapshots.
        if (error instanceof LostChunkError || (readable && error instanceof DamageError)) continue;
        throw error;
      }
      this.#seen.add(block.places.pack, block.places.chunk);
      for (let i = 0; i < BLOCK_PAGES * 2; i += 2) {
        const pack = this.#places[i]!;
        if (pack === 0) continue;
        this.pages.add(pack, this.#places[i + 1]!);
        this.all.add(pack, this.#places[i + 1]!);
      }
    }
  }

  #add({ pack, chunk }: Place): void {
    this.all.add(pack, chunk);
  }
}

/** What the chunks of a pack that are chosen take of it: their share of frames and trailer, or the whole pack. */
export function bytesOfChunks(reader: PackReader, chosen: (chunk: number) => boolean): number {
  let bytes = 0;
  let count = 0;
  for (const frame of reader.frames) {
    let inFrame = 0;
    for (let i = 0; i < frame.chunks; i++) if (chosen(reader.numbers[frame.first + i]!)) inFrame++;
    bytes += (inFrame / frame.chunks) * (frameBytes(frame) + FRAME_ENTRY_BYTES);
    bytes += inFrame * CHUNK_ENTRY_BYTES;
    count += inFrame;
  }
  return count === reader.numbers.length ? reader.sizeBytes : Math.round(bytes);
}
