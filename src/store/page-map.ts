/**
 * Maps a region of a snapshot: which of its pages are zero, stored for it alone, shared, damaged, or changed since the
 * parent.
 *
 * Invariants:
 * - Damage is a class of pages. Only a damaged file of the snapshot itself is an error.
 * - Other work of this thread runs between two blocks and between two snapshots, and the signal is checked there.
 */
import { setImmediate } from 'node:timers/promises';
import { LivesnapError } from '../errors.js';
import { PAGE_BYTES } from '../page-stream.js';
import type { StoreContext } from './context.js';
import { diffSnapshots } from './diff.js';
import { DamageError, nullIfDamaged } from './disk/damage.js';
import { storeError } from './disk/layout.js';
import type { PackSet } from './pack/pack-set.js';
import { BLOCK_PAGES, type BlockEntry, pagesOfBlock } from './snapshot/block-list.js';
import type { ChunkSet } from './snapshot/chunk-set.js';
import { findRegion, pagesOf } from './snapshot/description.js';
import { ManifestBlock, readBlock, readPages } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import { Usage } from './snapshot/usage.js';
import {
  PageClass,
  type PageMap,
  type PageMapOptions,
  type Progress,
  type RegionDifference,
  type SnapshotSummary,
} from './types.js';

const DEFAULT_CELLS = 4096;
/** A picture of more cells than this is larger than any screen. */
const MAX_CELLS = 1 << 20;

/** Calls `find` with the lock held, with a name or null for the snapshot itself. Errors: those of `find`, USAGE, NO_SUCH_REGION, DAMAGED, the signal's reason. */
export async function mapPages(
  context: StoreContext,
  find: (ref: string | null) => SnapshotSummary,
  options: PageMapOptions,
  progress?: Progress,
): Promise<PageMap> {
  const { region: name, maxCells = DEFAULT_CELLS, readData = false, base, signal } = options;
  const { fromPage = 0, pages = Number.MAX_SAFE_INTEGER } = options;
  if (!Number.isSafeInteger(fromPage) || fromPage < 0 || fromPage % BLOCK_PAGES !== 0 || !(pages >= 1))
    throw new LivesnapError('USAGE', `a map cannot begin at page ${fromPage} and have ${pages} pages`, {
      hint: `Begin at a multiple of ${BLOCK_PAGES}, and use 1 page or more.`,
    });
  if (!Number.isSafeInteger(maxCells) || maxCells < 1 || maxCells > MAX_CELLS)
    throw new LivesnapError('USAGE', `a map cannot have ${maxCells} cells`, {
      hint: `Use 1 to ${MAX_CELLS}.`,
    });
  const lock = await context.lock('shared', signal);
  const packs = context.packSet();
  try {
    const { id, parent } = find(null);
    const file = readNamed(context.dir, id);
    const { regions } = file.description;
    const region = name === undefined ? 0 : findRegion(file.description, name);
    const mapped = regions[region];
    if (mapped === undefined)
      throw new LivesnapError('NO_SUCH_REGION', `snapshot ${id} has no regions`, {
        hint: 'Only the pages of a region can be mapped.',
      });
    const changes =
      base === undefined
        ? changesSinceParent(context, parent, id, mapped.name)
        : changesSince(context, find(base).id, id, mapped.name);
    const others = await chunksOfOthers(context, packs, id, signal);
    const map = new MapOfRegion(mapped, fromPage, pages, maxCells);
    map.addChanges(changes);
    for (const entry of file.blocks.entriesOf(region)) {
      await setImmediate();
      signal?.throwIfAborted();
      if (!map.hasBlock(entry.block)) continue;
      map.addBlock(context, packs, file, entry, others, readData);
      progress?.(Math.min(mapped.sizeBytes, (entry.block + 1) * BLOCK_PAGES * PAGE_BYTES), mapped.sizeBytes);
    }
    return map.result(changes !== null);
  } catch (error) {
    throw storeError(context.dir, error);
  } finally {
    packs.close();
    lock.release();
  }
}

/** Null: there is nothing to compare with, or one of the two snapshots is damaged. */
function changesSinceParent(
  context: StoreContext,
  parent: string | null,
  id: string,
  region: string,
): RegionDifference | null {
  if (parent === null || !context.index.has(parent)) return null;
  try {
    return changesSince(context, parent, id, region);
  } catch (error) {
    if (error instanceof LivesnapError && (error.code === 'DAMAGED' || error.code === 'NO_SUCH_REGION'))
      return null;
    throw error;
  }
}

/** Null: there is no difference. Errors: NO_SUCH_REGION, DAMAGED. */
const changesSince = (
  context: StoreContext,
  base: string,
  id: string,
  region: string,
): RegionDifference | null => diffSnapshots(context, { id: base, region }, { id, region })[0] ?? null;

/**
 * What {@link chunksOfOthers} found last: a page of a browser asks for many parts of one map. A snapshot never changes,
 * and gc keeps the numbers of chunks, so it holds while there are the same snapshots. One bit a chunk.
 */
let lastFound: { readonly dir: string; readonly others: string; readonly chunks: ChunkSet } | null = null;

/** The chunks of pages that the other snapshots need, as far as these can be read. */
async function chunksOfOthers(
  { index, dir }: StoreContext,
  packs: PackSet,
  id: string,
  signal: AbortSignal | undefined,
): Promise<ChunkSet> {
  const ids = index.ids().filter((other) => other !== id);
  const others = ids.join();
  if (lastFound?.dir === dir && lastFound.others === others) return lastFound.chunks;
  const usage = new Usage(packs);
  let areWhole = true;
  for (const other of ids) {
    await setImmediate();
    signal?.throwIfAborted();
    try {
      const file = readNamed(dir, other);
      try {
        usage.addSnapshot(file);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        areWhole = false;
        usage.addSnapshot(file, { onlyReadable: true });
      }
    } catch (error) {
      if (!(error instanceof DamageError)) throw error; // or another process has removed it meanwhile
      areWhole = false;
    }
  }
  // What is damaged may be healed at any time.
  lastFound = areWhole ? { dir, others, chunks: usage.pages } : null;
  return usage.pages;
}

class MapOfRegion {
  readonly pages: number;
  readonly pagesPerCell: number;
  readonly cells: Uint8Array;
  readonly #block = new ManifestBlock();
  readonly #bytes = new Uint8Array(BLOCK_PAGES * PAGE_BYTES);
  #ownPages = 0;
  #sharedPages = 0;
  #damagedPages = 0;
  #changedPages = 0;

  constructor(
    readonly region: { readonly name: string; readonly sizeBytes: number },
    readonly fromPage: number,
    maxPages: number,
    maxCells: number,
  ) {
    this.pages = Math.max(0, Math.min(pagesOf(region.sizeBytes) - fromPage, maxPages));
    let pagesPerCell = 1;
    while (Math.ceil(this.pages / pagesPerCell) > maxCells) pagesPerCell *= 2;
    this.pagesPerCell = pagesPerCell;
    this.cells = new Uint8Array(Math.ceil(this.pages / pagesPerCell));
  }

  /** Adds pages of the region, and returns how many of them are mapped. */
  #add(fromPage: number, toPage: number, kind: number): number {
    const from = Math.max(0, fromPage - this.fromPage);
    const to = Math.min(this.pages, toPage - this.fromPage);
    if (from >= to) return 0;
    const last = Math.floor((to - 1) / this.pagesPerCell);
    for (let cell = Math.floor(from / this.pagesPerCell); cell <= last; cell++) this.cells[cell]! |= kind;
    return to - from;
  }

  hasBlock(block: number): boolean {
    const first = block * BLOCK_PAGES - this.fromPage;
    return first >= 0 && first < this.pages;
  }

  addChanges(changes: RegionDifference | null): void {
    for (const { fromBytes, toBytes } of changes?.ranges ?? []) {
      this.#changedPages += this.#add(fromBytes / PAGE_BYTES, pagesOf(toBytes), PageClass.changed);
    }
  }

  addBlock(
    { ops }: StoreContext,
    packs: PackSet,
    { description }: SnapshotFile,
    entry: BlockEntry,
    others: ChunkSet,
    readData: boolean,
  ): void {
    const first = entry.block * BLOCK_PAGES;
    const count = Math.min(pagesOfBlock(description.regions, entry), this.fromPage + this.pages - first);
    const block = nullIfDamaged(() => readBlock(ops, packs, description, entry, this.#block));
    if (block === null) {
      this.#add(first, first + count, PageClass.damaged);
      this.#damagedPages += entry.nonZeroPages;
      return;
    }
    const isReadable = (from: number, length: number): boolean => {
      const bytes = this.#bytes.subarray(0, length * PAGE_BYTES).fill(0);
      const read = (): true => {
        readPages(ops, packs, description, entry, block, from, bytes);
        return true;
      };
      return nullIfDamaged(read) ?? false;
    };
    // Most blocks are whole, and reading one at once is faster.
    const isVerified = readData && isReadable(0, count);
    for (let page = 0; page < count; page++) {
      if (block.isZero(page)) continue;
      const [pack, chunk] = [block.places[2 * page]!, block.places[2 * page + 1]!];
      const isThere = isVerified || (readData ? isReadable(page, 1) : isListed(packs, pack, chunk));
      const kind = !isThere ? 'damaged' : others.has(pack, chunk) ? 'shared' : 'own';
      this.#add(first + page, first + page + 1, PageClass[kind]);
      if (kind === 'damaged') this.#damagedPages++;
      else if (kind === 'shared') this.#sharedPages++;
      else this.#ownPages++;
    }
  }

  result(isCompared: boolean): PageMap {
    const { pages, pagesPerCell, cells } = this;
    const [ownPages, sharedPages, damagedPages] = [this.#ownPages, this.#sharedPages, this.#damagedPages];
    return {
      region: this.region.name,
      sizeBytes: this.region.sizeBytes,
      fromPage: this.fromPage,
      ...{ pages, pagesPerCell, cells },
      zeroPages: pages - ownPages - sharedPages - damagedPages,
      ...{ ownPages, sharedPages, damagedPages },
      changedPages: isCompared ? this.#changedPages : null,
    };
  }
}

/** Whether a pack lists the chunk and repair has not marked it as lost. */
function isListed(packs: PackSet, number: number, chunk: number): boolean {
  const pack = nullIfDamaged(() => packs.pack(number));
  if (pack === null) return false;
  const position = pack.positionOf(chunk);
  return position >= 0 && !pack.isLost(position);
}
