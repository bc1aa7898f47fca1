/** The list of a snapshot's manifest blocks, encoded as in its file (docs/format.md, "Snapshots"). */
import assert from 'node:assert/strict';
import type { Region } from '../../page-stream.js';
import { PACK_CHUNKS } from '../pack/pack-format.js';
import { pagesOf } from './description.js';

/** Pages that a manifest block covers: 2 MiB of a region. */
export const BLOCK_PAGES = 512;

export const BLOCK_ENTRY_BYTES = 32;

/** One manifest block of a region: 512 pages, at least one of them not zero. */
export interface BlockEntry {
  /** Index into the snapshot's regions. */
  readonly region: number;
  /** The block begins at page 512 × `block` of the region. */
  readonly block: number;
  readonly nonZeroPages: number;
  /** The chunk with the places of the pages, and the chunk with their fingerprints. */
  readonly places: Place;
  readonly fingerprints: Place;
  /** XXH64 of the fingerprints chunk. */
  readonly digest: bigint;
}

export interface Place {
  readonly pack: number;
  readonly chunk: number;
}

/** How many pages of a block are within its region. */
export const pagesOfBlock = (regions: readonly Region[], { region, block }: BlockEntry): number =>
  Math.min(BLOCK_PAGES, pagesOf(regions[region]!.sizeBytes) - block * BLOCK_PAGES);

/** A growing list of encoded entries. An entry is decoded when it is read, so a large list stays small in memory. */
export class BlockList implements Iterable<BlockEntry> {
  #bytes: Buffer;
  #length: number;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    assert(bytes.length % BLOCK_ENTRY_BYTES === 0);
    this.#bytes = bytes;
    this.#length = bytes.length / BLOCK_ENTRY_BYTES;
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length * BLOCK_ENTRY_BYTES);
  }

  push({ places, fingerprints, digest, block, nonZeroPages, region }: BlockEntry): void {
    const offset = this.#length * BLOCK_ENTRY_BYTES;
    if (offset === this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(64 * BLOCK_ENTRY_BYTES, 2 * offset));
      grown.set(this.#bytes);
      this.#bytes = grown;
    }
    const bytes = this.#bytes;
    bytes.writeUInt32LE(places.pack, offset);
    bytes.writeUInt32LE(places.chunk, offset + 4);
    bytes.writeUInt32LE(fingerprints.pack, offset + 8);
    bytes.writeUInt32LE(fingerprints.chunk, offset + 12);
    bytes.writeBigUInt64LE(digest, offset + 16);
    bytes.writeUInt32LE(block, offset + 24);
    bytes.writeUInt16LE(nonZeroPages, offset + 28);
    bytes.writeUInt16LE(region, offset + 30);
    this.#length++;
  }

  at(index: number): BlockEntry {
    const bytes = this.#bytes;
    const offset = index * BLOCK_ENTRY_BYTES;
    return {
      places: { pack: bytes.readUInt32LE(offset), chunk: bytes.readUInt32LE(offset + 4) },
      fingerprints: { pack: bytes.readUInt32LE(offset + 8), chunk: bytes.readUInt32LE(offset + 12) },
      digest: bytes.readBigUInt64LE(offset + 16),
      block: bytes.readUInt32LE(offset + 24),
      nonZeroPages: bytes.readUInt16LE(offset + 28),
      region: bytes.readUInt16LE(offset + 30),
    };
  }

  /** The index of the first entry of this block or a later one, in a list that is in order. */
  lowerBound(region: number, block: number): number {
    const bytes = this.#bytes;
    let from = 0;
    let to = this.#length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      const offset = middle * BLOCK_ENTRY_BYTES;
      const entryRegion = bytes.readUInt16LE(offset + 30);
      const isBefore =
        entryRegion < region || (entryRegion === region && bytes.readUInt32LE(offset + 24) < block);
      if (isBefore) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** The entries of a region, ascending, in a list that is in order. */
  *entriesOf(region: number): Generator<BlockEntry> {
    const end = this.lowerBound(region + 1, 0);
    for (let i = this.lowerBound(region, 0); i < end; i++) yield this.at(i);
  }

  /** The encoded entries of a region, in a list that is in order. */
  bytesOf(region: number): Buffer {
    const from = this.lowerBound(region, 0) * BLOCK_ENTRY_BYTES;
    return this.#bytes.subarray(from, this.lowerBound(region + 1, 0) * BLOCK_ENTRY_BYTES);
  }

  *[Symbol.iterator](): Generator<BlockEntry> {
    for (let i = 0; i < this.#length; i++) yield this.at(i);
  }
}

const isPlace = ({ pack, chunk }: Place): boolean => pack !== 0 && chunk < PACK_CHUNKS;

/** The index of the first entry that is out of bounds or out of order for these regions; -1: all are valid. */
export function findInvalidEntry(blocks: BlockList, regions: readonly Region[]): number {
  let previous: BlockEntry | null = null;
  for (let i = 0; i < blocks.length; i++) {
    const entry = blocks.at(i);
    const region = regions[entry.region];
    if (
      !region ||
      entry.block * BLOCK_PAGES >= pagesOf(region.sizeBytes) ||
      entry.nonZeroPages < 1 ||
      entry.nonZeroPages > BLOCK_PAGES ||
      !isPlace(entry.places) ||
      !isPlace(entry.fingerprints) ||
      (previous &&
        (previous.region > entry.region ||
          (previous.region === entry.region && previous.block >= entry.block)))
    )
      return i;
    previous = entry;
  }
  return -1;
}
