/**
 * Marks the chunks that snapshots need, for gc, `show` and `stats`.
 *
 * Invariant: a manifest block that several snapshots share is read once.
 */
import { DamageError, LostChunkError } from '../disk/damage.js';
import { CHUNK_ENTRY_BYTES, FRAME_ENTRY_BYTES, frameBytes } from '../pack/pack-format.js';
import type { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES, type Place, pagesOfBlock } from './block-list.js';
import { ChunkSet } from './chunk-set.js';
import { readPlaces, readProvenPlaces } from './manifest.js';
import type { SnapshotFile } from './snapshot-file.js';

export class Usage {
  /** Chunks of pages. */
  readonly pages = new ChunkSet();
  /** Chunks of pages and of manifest blocks. */
  readonly all = new ChunkSet();
  /** The places chunks of the blocks that were read. */
  readonly #readBlocks = new ChunkSet();
  readonly #places = new Uint32Array(BLOCK_PAGES * 2);

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
        if (onlyReadable)
          readProvenPlaces(this.packs, block, pagesOfBlock(file.description.regions, block), this.#places);
        else readPlaces(this.packs, block, this.#places);
      } catch (error) {
        // The pages of a lost block cannot be reached. Repair has reported the snapshots.
        if (error instanceof LostChunkError || (onlyReadable && error instanceof DamageError)) continue;
        throw error;
      }
      this.#readBlocks.add(block.places.pack, block.places.chunk);
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
