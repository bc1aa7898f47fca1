/**
 * Marks the chunks that snapshots need, for gc, `show` and `stats`.
 *
 * Invariant: a manifest block that several snapshots share is read once.
 */
import { DamageError, LostChunkError } from '../disk/damage.js';
import { CHUNK_ENTRY_BYTES, FRAME_ENTRY_BYTES, frameBytes } from '../pack/pack-format.js';
import type { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES, type Place } from './block-list.js';
import { ChunkSet } from './chunk-set.js';
import { errorOfBlock, readPlaces, readProvenPlaces } from './manifest.js';
import type { SnapshotFile } from './snapshot-file.js';

const NO_PLACES = new Uint32Array(BLOCK_PAGES * 2);
/** 32 MiB: the blocks of 16 GiB. */
const MAX_LAST_PLACES = 8192;

export class Usage {
  /** Chunks of pages. */
  readonly pages = new ChunkSet();
  /** Chunks of pages and of manifest blocks. */
  readonly all = new ChunkSet();
  /** The places chunks of the blocks that were read. */
  readonly #readBlocks = new ChunkSet();
  #places: Uint32Array = new Uint32Array(BLOCK_PAGES * 2);
  /** The places that were read last for a block of a region of a machine. Snapshots of a machine share most. */
  readonly #lastPlaces = new Map<string, Uint32Array>();

  constructor(readonly packs: PackSet) {}

  /**
   * Adds the chunks that a snapshot needs. `onlyReadable`: skips blocks that cannot be read and proven.
   * Errors: DAMAGED when a block cannot be read, unless repair has marked it as lost.
   */
  addSnapshot(file: SnapshotFile, { onlyReadable = false } = {}): void {
    for (const block of file.blocks) {
      this.#add(block.fingerprints);
      this.#add(block.places);
      if (this.#readBlocks.has(block.places.pack, block.places.chunk)) continue;
      try {
        if (onlyReadable) readProvenPlaces(this.packs, file.description, block, this.#places);
        else readPlaces(this.packs, block, this.#places);
      } catch (error) {
        // The pages of a lost block cannot be reached. Repair has reported the snapshots.
        if (error instanceof LostChunkError || (onlyReadable && error instanceof DamageError)) continue;
        throw errorOfBlock(error, file.description, block);
      }
      this.#readBlocks.add(block.places.pack, block.places.chunk);
      this.#addPlaces(
        `${file.description.vm}/${file.description.regions[block.region]!.name}/${block.block}`,
      );
    }
  }

  /** Adds {@link #places}. `block` names a block whose last places were most likely the same. */
  #addPlaces(block: string): void {
    const places = this.#places;
    const last = this.#lastPlaces.get(block);
    const known = last ?? NO_PLACES;
    for (let i = 0; i < BLOCK_PAGES * 2; i += 2) {
      if (places[i] === known[i] && places[i + 1] === known[i + 1]) continue;
      const pack = places[i]!;
      const chunk = places[i + 1]!;
      if (pack !== 0 && this.pages.add(pack, chunk)) this.all.add(pack, chunk);
    }
    if (last === undefined && this.#lastPlaces.size >= MAX_LAST_PLACES) return;
    this.#lastPlaces.set(block, places);
    this.#places = last ?? new Uint32Array(BLOCK_PAGES * 2);
  }

  #add({ pack, chunk }: Place): void {
    this.all.add(pack, chunk);
  }
}

/** The bytes of a pack that the chosen chunks account for: their share of frames and trailer, or the whole pack. */
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
