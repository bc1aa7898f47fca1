/**
 * The manifest of a snapshot that is being saved: for each region the parent's blocks, and over them those that were
 * touched. Batches of pages go out with what the parent has at their addresses, and come back with their places.
 *
 * Invariant: what is in it is what was taken over last for each page, else the parent's. Reads the parent's blocks;
 * stores nothing.
 */
import type { PageOps } from '../../native/pages.js';
import { BATCH_PAGES, type Region } from '../../page-stream.js';
import { BLOCK_PAGES } from '../pack/pack-format.js';
import type { PackSet } from '../pack/pack-reader.js';
import { type BlockEntry, pagesOfBlock } from '../snapshot/block-list.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { areRegions, pagesOf } from '../snapshot/description.js';
import { ManifestBlock, readBlock } from '../snapshot/manifest.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import type { PageBatch } from '../worker/page-batch.js';

class RegionDraft {
  readonly touched = new Map<number, ManifestBlock>();
  /** The parent's blocks of the region of this name, by block number. */
  readonly inherited = new Map<number, BlockEntry>();
  /** Page numbers given so far are below this. */
  pageLimit = 0;
}

/** Never written to. */
const ALL_ZERO = new ManifestBlock();

export interface BlockToStore {
  readonly number: number;
  readonly block: ManifestBlock;
  readonly nonZeroPages: number;
}

/** A region when all its pages have come. */
export interface FinishedRegion {
  /** Blocks that are the parent's. */
  readonly kept: BlockEntry[];
  readonly toStore: BlockToStore[];
  /** Pages that have the parent's place, and pages that have another. */
  readonly unchangedPages: number;
  readonly references: number;
}

export class ManifestDraft {
  /** As they are now: a region may have changed its size since the save began. */
  regions: readonly Region[] = [];
  readonly #drafts: RegionDraft[] = [];
  readonly #names: string[] = [];

  constructor(
    readonly ops: PageOps,
    readonly packs: PackSet,
    readonly parent: SnapshotFile | null,
  ) {}

  /** Learns the regions, or checks that they are still the same. */
  adopt(regions: readonly Region[]): void {
    if (!areRegions(regions)) throw new RangeError('the regions have bad names or sizes');
    const known = this.#names.length > 0;
    if (
      known &&
      (regions.length !== this.#names.length || regions.some(({ name }, i) => name !== this.#names[i]))
    )
      throw new RangeError('the regions are not those that the save began with');
    this.regions = regions;
    if (known) return;
    for (const { name } of regions) {
      const draft = new RegionDraft();
      const before = this.parent?.description.regions.findIndex((region) => region.name === name) ?? -1;
      for (const entry of this.parent?.blocks ?? [])
        if (entry.region === before) draft.inherited.set(entry.block, entry);
      this.#names.push(name);
      this.#drafts.push(draft);
    }
  }

  /** The block, brought in from the parent when it is touched for the first time. */
  #touch(draft: RegionDraft, number: number): ManifestBlock {
    let block = draft.touched.get(number);
    if (!block) {
      block = this.#inherited(draft, number);
      draft.touched.set(number, block);
    }
    return block;
  }

  #inherited(draft: RegionDraft, number: number): ManifestBlock {
    const entry = draft.inherited.get(number);
    return entry ? this.#read(entry) : new ManifestBlock();
  }

  #read(entry: BlockEntry): ManifestBlock {
    return readBlock(this.ops, this.packs, entry, pagesOfBlock(this.parent!.description.regions, entry));
  }

  /** Says what is at the addresses of the pages so far. */
  fillPrior(batch: PageBatch, region: number, pages: Uint32Array): void {
    const draft = this.#drafts[region];
    if (!draft || pages.length > BATCH_PAGES) throw new RangeError('the source gave a bad batch');
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!;
      const block = this.#touch(draft, Math.floor(page / BLOCK_PAGES));
      const from = page % BLOCK_PAGES;
      batch.priorPlaces[2 * i] = block.places[2 * from]!;
      batch.priorPlaces[2 * i + 1] = block.places[2 * from + 1]!;
      batch.priorFingerprints[2 * i] = block.fingerprints[2 * from]!;
      batch.priorFingerprints[2 * i + 1] = block.fingerprints[2 * from + 1]!;
      if (page >= draft.pageLimit) draft.pageLimit = page + 1;
    }
  }

  /** The places of pages that {@link fillPrior} was given. */
  takeOver(batch: PageBatch, region: number, pages: Uint32Array): void {
    const draft = this.#drafts[region]!;
    for (let i = 0; i < pages.length; i++) {
      const page = pages[i]!;
      const block = draft.touched.get(Math.floor(page / BLOCK_PAGES))!;
      block.take(page % BLOCK_PAGES, batch.places, batch.fingerprintWords, i);
    }
  }

  /** What is to be stored of a region; adds the chunks that are not the parent's to `ownChunks`. */
  finish(region: number, ownChunks: ChunkSet): FinishedRegion {
    const draft = this.#drafts[region]!;
    const pageCount = pagesOf(this.regions[region]!.sizeBytes);
    if (draft.pageLimit > pageCount) throw new RangeError('the source gave a page beyond its region');
    const blockCount = Math.ceil(pageCount / BLOCK_PAGES);
    if (pageCount % BLOCK_PAGES !== 0 && draft.inherited.has(blockCount - 1))
      this.#touch(draft, blockCount - 1).cut(pageCount % BLOCK_PAGES);

    const kept: BlockEntry[] = [];
    const toStore: BlockToStore[] = [];
    let unchangedPages = 0;
    let references = 0;
    for (const [number, entry] of draft.inherited) {
      if (number >= blockCount || draft.touched.has(number)) continue;
      unchangedPages += entry.nonZeroPages;
      kept.push({ ...entry, region });
    }
    for (const [number, block] of draft.touched) {
      const entry = draft.inherited.get(number);
      const before = entry ? this.#read(entry) : ALL_ZERO;
      let nonZeroPages = 0;
      let samePages = 0;
      for (let page = 0; page < BLOCK_PAGES; page++) {
        const same = block.hasSamePlace(page, before);
        if (same) samePages++;
        if (block.isZero(page)) continue;
        nonZeroPages++;
        if (same) {
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
