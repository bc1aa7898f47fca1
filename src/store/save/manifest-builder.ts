/**
 * The manifest of a snapshot that is being saved: the blocks of the bases, with the blocks that the save has changed.
 *
 * Batches get the places of the base before they are deduplicated, and their new places are recorded afterwards. A block
 * is finished when no more pages of it are expected: the caller stores it, and only its entry stays here. If a page of it
 * comes nevertheless, the caller reads the block back and reopens it.
 *
 * Thread: the thread of the save.
 *
 * Invariants:
 * - A page has the place recorded last, or else that of the region's base.
 * - Blocks of the base that the save does not change are never read.
 * - Memory grows with the changed blocks that are not finished, and by a few bytes for any other block.
 */
import assert from 'node:assert/strict';
import type { PageOps } from '../../native/pages.js';
import { BATCH_PAGES, PAGE_BYTES, type Region } from '../../page-stream.js';
import type { PackSet } from '../pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry } from '../snapshot/block-list.js';
import { ChunkSet } from '../snapshot/chunk-set.js';
import { areRegions, pagesOf } from '../snapshot/description.js';
import { ManifestBlock, readBlock, readPages } from '../snapshot/manifest.js';
import type { PageBatch } from '../worker/page-batch.js';
import type { RegionBase } from './bases.js';
import { FinishedBlocks } from './finished-blocks.js';
import { type LoadedBlock, scatteredPages } from './scattered-pages.js';

/** The blocks of one region, by number. */
class RegionBlocks {
  /** Those that this save has got pages of, and that are not finished. */
  readonly changed = new Map<number, LoadedBlock>();
  readonly finished = new FinishedBlocks();
  /** One more than the highest page number so far. */
  pageLimit = 0;

  constructor(readonly base: RegionBase | null) {}
}

/** Of a block that the base does not have. Never written to. */
const NO_PLACES = new Uint32Array(BLOCK_PAGES * 2);
/** Blocks that are kept for reuse: new ones cost more than to read one. */
const MAX_IDLE_BLOCKS = 256;

export interface BlockToStore {
  readonly number: number;
  readonly block: ManifestBlock;
  readonly nonZeroPages: number;
}

interface Comparison {
  readonly nonZeroPages: number;
  /** Pages that have the place of the base, zero pages among them. */
  readonly samePages: number;
  /** Those that are not zero. */
  readonly unchangedPages: number;
}

export class ManifestBuilder {
  /** The current regions. Sizes may change during a save; names and number may not. */
  regions: readonly Region[] = [];
  readonly #blocks: RegionBlocks[] = [];
  readonly #names: string[] = [];
  readonly #idleBlocks: ManifestBlock[] = [];
  readonly #idlePlaces: Uint32Array[] = [];
  /** The chunks of pages of finished blocks that have another place than in the base. */
  readonly ownChunks = new ChunkSet();
  #unchangedPages = 0;
  #references = 0;
  #movedPages = 0;

  constructor(
    readonly ops: PageOps,
    readonly packs: PackSet,
    readonly baseOf: (region: string) => RegionBase | null,
  ) {}

  /** Pages of finished blocks that have the place of the base, and are not zero. */
  get unchangedPages(): number {
    return this.#unchangedPages;
  }

  /** Pages of finished blocks that have another place, and are not zero. */
  get references(): number {
    return this.#references;
  }

  /** Pages that have another place and the bytes of the base ({@link recordMoved}). */
  get movedPages(): number {
    return this.#movedPages;
  }

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
    const known = blocks.changed.get(number);
    if (known) return known.block;
    const entry = blocks.base?.entryOf(number);
    const block = this.#idleBlocks.pop() ?? new ManifestBlock();
    if (entry) this.#read(blocks, entry, block);
    else block.cut(0);
    blocks.changed.set(number, { block, basePlaces: entry ? this.#placesOf(block) : NO_PLACES });
    return block;
  }

  #read({ base }: RegionBlocks, entry: BlockEntry, block?: ManifestBlock): ManifestBlock {
    return readBlock(this.ops, this.packs, base!.file.description, entry, block);
  }

  #placesOf(block: ManifestBlock): Uint32Array {
    const places = this.#idlePlaces.pop() ?? new Uint32Array(BLOCK_PAGES * 2);
    places.set(block.places);
    return places;
  }

  /** Nobody uses the block any more. */
  #reuse(block: ManifestBlock): void {
    if (this.#idleBlocks.length < MAX_IDLE_BLOCKS) this.#idleBlocks.push(block);
  }

  /** Sets the batch's prior places and fingerprints: what the pages' addresses hold so far. No page is of a finished block. */
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
      const { block } = changed.get(Math.floor(page / BLOCK_PAGES))!;
      block.take(page % BLOCK_PAGES, batch.places, batch.fingerprintWords, i);
    }
  }

  /**
   * Pages that the save should store again (scattered-pages.ts); none, unless it has changed half of the blocks: the
   * pages of a frame are counted in those.
   */
  scatteredPages(region: number): number[] {
    const { base, changed } = this.#blocks[region]!;
    if (base === null) return [];
    let total = 0;
    for (const _ of base.entries()) if (++total > 2 * changed.size) return [];
    return scatteredPages(changed);
  }

  /** Records the new places of a batch that was stored again. {@link fillPrior} was called for it. */
  recordMoved(batch: PageBatch, region: number, pages: Uint32Array): void {
    for (let i = 0; i < 2 * pages.length; i += 2)
      if (batch.places[i] !== batch.priorPlaces[i] || batch.places[i + 1] !== batch.priorPlaces[i + 1])
        this.#movedPages++;
    this.record(batch, region, pages);
  }

  /** Changed blocks of the region that are not finished; all but the last one, if more pages are expected. */
  unfinished(region: number, { exceptLast }: { exceptLast: boolean }): number[] {
    const numbers = [...this.#blocks[region]!.changed.keys()];
    if (!exceptLast) return numbers;
    const last = Math.max(...numbers);
    return numbers.filter((number) => number !== last);
  }

  /** How many changed blocks of the region are not finished. */
  unfinishedCount(region: number): number {
    return this.#blocks[region]?.changed.size ?? 0;
  }

  /**
   * Finishes changed blocks. Returns those to be stored: {@link setStored} takes their entries. Blocks that equal the
   * base's keep its entry.
   */
  finish(region: number, numbers: readonly number[]): BlockToStore[] {
    const blocks = this.#blocks[region]!;
    const toStore: BlockToStore[] = [];
    for (const number of numbers) {
      const { block, basePlaces } = blocks.changed.get(number)!;
      const { nonZeroPages, samePages, unchangedPages } = compare(block, basePlaces, this.ownChunks);
      this.#unchangedPages += unchangedPages;
      this.#references += nonZeroPages - unchangedPages;
      blocks.changed.delete(number);
      if (basePlaces !== NO_PLACES && this.#idlePlaces.length < MAX_IDLE_BLOCKS)
        this.#idlePlaces.push(basePlaces);
      if (samePages < BLOCK_PAGES && nonZeroPages > 0) {
        toStore.push({ number, block, nonZeroPages });
        continue;
      }
      if (samePages === BLOCK_PAGES) blocks.finished.setKept(number);
      else blocks.finished.setZero(number);
      this.#reuse(block);
    }
    return toStore;
  }

  /** Sets the entries of the blocks that {@link finish} gave to be stored. */
  setStored(region: number, stored: readonly BlockToStore[], entries: readonly BlockEntry[]): void {
    for (const entry of entries) this.#blocks[region]!.finished.setStored(entry);
    for (const { block } of stored) this.#reuse(block);
  }

  /** The finished blocks that these pages are in, each once. They must be reopened before the pages are recorded. */
  finishedBlocksOf(region: number, pages: Uint32Array): number[] {
    const finished = this.#blocks[region]?.finished;
    if (!finished || finished.isEmpty) return [];
    const numbers = new Set<number>();
    for (const page of pages) numbers.add(Math.floor(page / BLOCK_PAGES));
    return [...numbers].filter((number) => finished.has(number));
  }

  /** The entry of a finished block that was stored; null: it is all zero, or the base's. */
  storedEntry(region: number, number: number): BlockEntry | null {
    return this.#blocks[region]!.finished.storedEntry(number);
  }

  /** Makes a finished block a changed one again. `stored`: what was read back; null if it was not stored. */
  reopen(region: number, number: number, stored: ManifestBlock | null): void {
    const blocks = this.#blocks[region]!;
    const isZero = blocks.finished.isZero(number);
    blocks.finished.delete(number);
    const block = this.#changedBlock(blocks, number);
    const { basePlaces } = blocks.changed.get(number)!;
    if (stored) block.copy(stored);
    else if (isZero) block.cut(0);
    const { nonZeroPages, unchangedPages } = compare(block, basePlaces);
    this.#unchangedPages -= unchangedPages;
    this.#references -= nonZeroPages - unchangedPages;
  }

  /**
   * The block in which a region ends within its base, so that pages and bytes beyond the end must be cut; null: there is
   * none. It is not finished, because it is the last one.
   */
  blockToCut(region: number): number | null {
    const { base } = this.#blocks[region]!;
    const { sizeBytes } = this.regions[region]!;
    if (!base || base.sizeBytes <= sizeBytes || sizeBytes % (BLOCK_PAGES * PAGE_BYTES) === 0) return null;
    const number = Math.floor((pagesOf(sizeBytes) - 1) / BLOCK_PAGES);
    return base.entryOf(number) ? number : null;
  }

  /**
   * Cuts the pages beyond the end of the region off its last block. Returns the last page and its bytes up to the end of
   * the region, if it is the base's and only a part of it is in the region. It must be stored again. Errors: DAMAGED.
   */
  cut(region: number, number: number): { page: number; bytes: Uint8Array } | null {
    const blocks = this.#blocks[region]!;
    const { sizeBytes } = this.regions[region]!;
    const pageCount = pagesOf(sizeBytes);
    assert(!blocks.finished.has(number), 'the last block is not finished');
    const block = this.#changedBlock(blocks, number);
    const end = pageCount - number * BLOCK_PAGES;
    if (end < BLOCK_PAGES) block.cut(end);
    const page = pageCount - 1;
    const at = page % BLOCK_PAGES;
    if (sizeBytes === pageCount * PAGE_BYTES || block.isZero(at)) return null;
    if (!block.hasPlace(at, blocks.changed.get(number)!.basePlaces)) return null;
    const { base } = blocks;
    const bytes = new Uint8Array(PAGE_BYTES);
    readPages(this.ops, this.packs, base!.file.description, base!.entryOf(number)!, block, at, bytes);
    return { page, bytes: bytes.subarray(0, sizeBytes % PAGE_BYTES) };
  }

  /** The entries of a region of which all blocks are finished, ascending. Counts the pages of blocks that are the base's. */
  *entries(region: number): Generator<BlockEntry> {
    const { base, changed, finished, pageLimit } = this.#blocks[region]!;
    const pageCount = pagesOf(this.regions[region]!.sizeBytes);
    if (pageLimit > pageCount) throw new RangeError('the source gave a page beyond its region');
    assert(changed.size === 0, 'all blocks are finished');
    const blockCount = Math.ceil(pageCount / BLOCK_PAGES);
    const stored = finished.storedEntries();
    let next = stored.next();
    for (const entry of base?.entries() ?? []) {
      if (entry.block >= blockCount) break;
      for (; !next.done && next.value.block < entry.block; next = stored.next()) yield next.value;
      if (!finished.has(entry.block)) this.#unchangedPages += entry.nonZeroPages;
      else if (!finished.isKept(entry.block)) continue;
      yield { ...entry, region };
    }
    for (; !next.done; next = stored.next()) yield next.value;
  }
}

/** Compares a block with that of the base. Adds chunks that the base does not have there to `ownChunks`. */
function compare(block: ManifestBlock, basePlaces: Uint32Array, ownChunks?: ChunkSet): Comparison {
  let nonZeroPages = 0;
  let samePages = 0;
  let unchangedPages = 0;
  for (let page = 0; page < BLOCK_PAGES; page++) {
    const isSame = block.hasPlace(page, basePlaces);
    if (isSame) samePages++;
    if (block.isZero(page)) continue;
    nonZeroPages++;
    if (isSame) unchangedPages++;
    else ownChunks?.add(block.places[2 * page]!, block.places[2 * page + 1]!);
  }
  return { nonZeroPages, samePages, unchangedPages };
}
