/**
 * The manifest of a snapshot that is being saved: the blocks of the bases, with the blocks that the save has changed.
 *
 * Batches get the places of the base before they are deduplicated, and their new places are recorded afterwards. It
 * reads blocks of the bases, and stores nothing.
 *
 * Thread: the thread of the save.
 *
 * Invariant: a page has the place recorded last, or else that of the region's base.
 */
import type { PageOps } from '../../native/pages.js';
import { BATCH_PAGES, type Region } from '../../page-stream.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry, pagesOfBlock } from '../snapshot/block-list.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { areRegions, pagesOf } from '../snapshot/description.js';
import { ManifestBlock, readBlock } from '../snapshot/manifest.js';
import type { PageBatch } from '../worker/page-batch.js';
import type { RegionBase } from './bases.js';

/** The blocks of one region, by number. */
class RegionBlocks {
  /** Blocks that this save has got pages of. */
  readonly changed = new Map<number, ManifestBlock>();
  /** The blocks of the base. */
  readonly inherited = new Map<number, BlockEntry>();
  /** One more than the highest page number so far. */
  pageLimit = 0;

  constructor(readonly base: RegionBase | null) {
    for (const entry of base?.file.blocks ?? [])
      if (entry.region === base?.region) this.inherited.set(entry.block, entry);
  }
}

/** Never written to. */
const ALL_ZERO = new ManifestBlock();

export interface BlockToStore {
  readonly number: number;
  readonly block: ManifestBlock;
  readonly nonZeroPages: number;
}

/** A region of which all pages are recorded. */
export interface FinishedRegion {
  /** Blocks that equal those of the base: only their entries are written again. */
  readonly kept: BlockEntry[];
  readonly toStore: BlockToStore[];
  /** Pages that have the place of the base. */
  readonly unchangedPages: number;
  /** Pages that have another place, and are not zero. */
  readonly references: number;
}

export class ManifestBuilder {
  /** The current regions. Sizes may change during a save; names and number may not. */
  regions: readonly Region[] = [];
  readonly #blocks: RegionBlocks[] = [];
  readonly #names: string[] = [];

  constructor(
    readonly ops: PageOps,
    readonly packs: PackSet,
    readonly baseOf: (region: string) => RegionBase | null,
  ) {}

  setRegions(regions: readonly Region[]): void {
    if (!areRegions(regions)) throw new RangeError('the regions have bad names or sizes');
    const isFirst = this.#names.length === 0;
    if (
      !isFirst &&
      (regions.length !== this.#names.length || regions.some(({ name }, i) => name !== this.#names[i]))
    )
      throw new RangeError('the regions differ from those of the first source');
    this.regions = regions;
    if (!isFirst) return;
    for (const { name } of regions) {
      this.#names.push(name);
      this.#blocks.push(new RegionBlocks(this.baseOf(name)));
    }
  }

  /** The block, for changes. Reads that of the base when it is changed for the first time. */
  #changedBlock(blocks: RegionBlocks, number: number): ManifestBlock {
    let block = blocks.changed.get(number);
    if (!block) {
      const entry = blocks.inherited.get(number);
      block = entry ? this.#read(blocks, entry) : new ManifestBlock();
      blocks.changed.set(number, block);
    }
    return block;
  }

  #read({ base }: RegionBlocks, entry: BlockEntry): ManifestBlock {
    return readBlock(this.ops, this.packs, entry, pagesOfBlock(base!.file.description.regions, entry));
  }

  /** Sets the batch's prior places and fingerprints: what the pages' addresses hold so far. */
  fillPrior(batch: PageBatch, region: number, pages: Uint32Array): void {
    const blocks = this.#blocks[region];
    if (!blocks || pages.length > BATCH_PAGES) throw new RangeError('the source gave a bad batch');
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!;
      const block = this.#changedBlock(blocks, Math.floor(page / BLOCK_PAGES));
      const from = page % BLOCK_PAGES;
      batch.priorPlaces[2 * i] = block.places[2 * from]!;
      batch.priorPlaces[2 * i + 1] = block.places[2 * from + 1]!;
      batch.priorFingerprints[2 * i] = block.fingerprints[2 * from]!;
      batch.priorFingerprints[2 * i + 1] = block.fingerprints[2 * from + 1]!;
      if (page >= blocks.pageLimit) blocks.pageLimit = page + 1;
    }
  }

  /** Records the places of a deduplicated batch. {@link fillPrior} was called for it. */
  record(batch: PageBatch, region: number, pages: Uint32Array): void {
    const { changed } = this.#blocks[region]!;
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!;
      const block = changed.get(Math.floor(page / BLOCK_PAGES))!;
      block.take(page % BLOCK_PAGES, batch.places, batch.fingerprintWords, i);
    }
  }

  /** Adds the region's chunks that are not those of the base to `ownChunks`. */
  finishRegion(region: number, ownChunks: ChunkSet): FinishedRegion {
    const blocks = this.#blocks[region]!;
    const pageCount = pagesOf(this.regions[region]!.sizeBytes);
    if (blocks.pageLimit > pageCount) throw new RangeError('the source gave a page beyond its region');
    const blockCount = Math.ceil(pageCount / BLOCK_PAGES);
    // The region may be shorter than its base.
    if (pageCount % BLOCK_PAGES !== 0 && blocks.inherited.has(blockCount - 1))
      this.#changedBlock(blocks, blockCount - 1).cut(pageCount % BLOCK_PAGES);

    const kept: BlockEntry[] = [];
    const toStore: BlockToStore[] = [];
    let unchangedPages = 0;
    let references = 0;
    for (const [number, entry] of blocks.inherited) {
      if (number >= blockCount || blocks.changed.has(number)) continue;
      unchangedPages += entry.nonZeroPages;
      kept.push({ ...entry, region });
    }
    for (const [number, block] of blocks.changed) {
      const entry = blocks.inherited.get(number);
      const before = entry ? this.#read(blocks, entry) : ALL_ZERO;
      let nonZeroPages = 0;
      let samePages = 0;
      for (let page = 0; page < BLOCK_PAGES; page++) {
        const isSame = block.hasSamePlace(page, before);
        if (isSame) samePages++;
        if (block.isZero(page)) continue;
        nonZeroPages++;
        if (isSame) {
          unchangedPages++;
          continue;
        }
        references++;
        ownChunks.add(block.places[2 * page]!, block.places[2 * page + 1]!);
      }
      if (samePages === BLOCK_PAGES && entry) kept.push({ ...entry, region });
      else if (nonZeroPages > 0) toStore.push({ number, block, nonZeroPages });
    }
    return { kept, toStore, unchangedPages, references };
  }
}
