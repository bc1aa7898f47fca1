/**
 * A save: pages in, a snapshot out (docs/format.md, "Saving").
 *
 * Runs on the thread that opened the store and so owns its database. A page Worker deduplicates and stores the pages,
 * batch by batch. Batches are stored in the order of the source, so the last copy of a page wins.
 *
 * Invariants:
 * - Before `commit` resolves, the snapshot is not visible. Afterwards it survives a power failure.
 * - A save that fails or is aborted deletes its files.
 * - gc deletes no chunk that the save refers to: the parent is pinned, and other packs are locked (pack-holds.ts).
 */
import { closeSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import {
  BATCH_PAGES,
  PAGE_BYTES,
  type PageRun,
  type PageSource,
  type Progress,
  type Region,
  type SaveResult,
  type SaveSession,
  type SnapshotMetadata,
} from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { unlinkUnlessLocked } from '../disk/file-locks.js';
import {
  at,
  fsyncDirectory,
  packFile,
  removeIfThere,
  requireFreeSpace,
  SNAPSHOTS,
  storeError,
} from '../disk/layout.js';
import { notOfStore } from '../disk/store-error.js';
import type { StoreLock } from '../disk/store-lock.js';
import { type PackRow, snapshotRow } from '../index/index-database.js';
import type { PackSet } from '../pack/pack-reader.js';
import { type SegmentRow, segmentFile } from '../segment/segment-file.js';
import type { ManifestBlock } from '../snapshot/manifest.js';
import { type BlockEntry, BlockList, type Place, snapshotFile } from '../snapshot/snapshot-file.js';
import { ChunkSet } from '../snapshot/usage.js';
import { syncTagFiles } from '../tags.js';
import { packList } from '../worker/pack-list.js';
import type { PageBatch } from '../worker/page-batch.js';
import { acquireBatch, newSession, type PageWorker, pageWorker, releaseBatch } from '../worker/page-pool.js';
import {
  countPages,
  describeSnapshot,
  newOrigin,
  requireCommittable,
  type SnapshotOrigin,
  writeSnapshot,
} from './commit.js';
import { type BlockToStore, ManifestBuilder } from './manifest-builder.js';
import { openParent, type Parent } from './parent.js';

/** Enough that neither the source nor the page Worker waits for the other. */
const BATCHES_IN_FLIGHT = 4;
/** The free space is checked once for so many pages. */
const SPACE_CHECK_PAGES = 16 * BATCH_PAGES;
const MIN_FREE_BYTES = 1 << 20;
/**
 * New chunks (4 GB) that a save keeps in a table in memory. Beyond that it makes a checkpoint: their packs are committed
 * without a snapshot, and found by their segment. So the memory of a save hardly grows with what it stores (2 MiB of
 * filters per checkpoint). With the batches in flight there are fewer than 2^20 chunks, the largest size of the table.
 */
const MAX_UNCOMMITTED_CHUNKS = 1_000_000;

/** The blocks of a snapshot, and what its pages came to. */
interface Manifest {
  readonly blocks: BlockList;
  readonly unchangedPages: number;
  readonly references: number;
  /** Chunks that are referred to and not the parent's. */
  readonly ownChunks: ChunkSet;
}

export class Save implements SaveSession {
  readonly #worker: PageWorker = pageWorker(0);
  readonly #session = newSession();
  /** For reading the parent's blocks. */
  readonly #packs: PackSet;
  readonly #manifest: ManifestBuilder;
  readonly #idleBatches: PageBatch[] = [];
  /** Set for a copy, which brings whole blocks. */
  #copiedBlocks: BlockList | null = null;
  /** Pack numbers that the Worker has left. */
  #spareNumbers = 0;
  #pagesUntilSpaceCheck = 0;
  /** Packs and segments that checkpoints have committed. */
  readonly #committedPacks: PackRow[] = [];
  readonly #committedSegments: SegmentRow[] = [];
  #uncommittedChunks = 0;
  #state: 'open' | 'failed' | 'ended' = 'open';
  /** The snapshot's file. The descriptor holds its lock. */
  #file: { id: string; fd: number } | null = null;
  /** A transaction has begun and not succeeded. Even if it failed, it may be in SQLite's log. */
  #isCommitting = false;
  #failure: unknown = null;

  private constructor(
    readonly context: StoreContext,
    readonly lock: StoreLock,
    readonly openedParent: Parent | null,
    readonly maxUncommittedChunks: number,
  ) {
    this.#packs = context.packSet();
    this.#manifest = new ManifestBuilder(context.ops, this.#packs, openedParent?.file ?? null);
    for (let i = 0; i < BATCHES_IN_FLIGHT; i++) this.#idleBatches.push(acquireBatch());
  }

  get parent(): string | null {
    return this.openedParent?.file.description.id ?? null;
  }

  /** The save is full if the parent is removed or damaged. Errors: READ_ONLY, NO_SPACE, STORE_BUSY. */
  static async begin(
    context: StoreContext,
    parent: string | null,
    maxUncommittedChunks = MAX_UNCOMMITTED_CHUNKS,
  ): Promise<Save> {
    context.requireWrite();
    const lock = await context.lock('shared');
    let opened: Parent | null = null;
    try {
      requireFreeSpace(context.dir, MIN_FREE_BYTES);
      opened = openParent(context, parent);
      const save = new Save(context, lock, opened, maxUncommittedChunks);
      await save.#beginPacking();
      return save;
    } catch (error) {
      opened?.pin.release();
      lock.release();
      throw storeError(context.dir, error);
    }
  }

  async #beginPacking(): Promise<void> {
    const { dir, fingerprintBits, index } = this.context;
    let segments = index.segments();
    for (;;) {
      const { missing } = await this.#worker.do('packBegin', {
        session: this.#session,
        dir,
        fingerprintBits,
        packs: packList(index.packs()),
        segments,
      });
      // A missing segment was merged into a new one since it was listed. If it is still listed it is damaged, and the
      // save does without it.
      segments = index.segments();
      const listed = new Set(segments.map(({ number }) => number));
      if (missing.every((number) => listed.has(number))) return;
    }
  }

  async store(source: PageSource, progress?: Progress): Promise<void> {
    await this.#step(async () => {
      this.#manifest.setRegions(source.regions);
      const inFlight: Promise<void>[] = [];
      let doneBytes = 0;
      try {
        for (;;) {
          if (inFlight.length === BATCHES_IN_FLIGHT) await inFlight.shift();
          const batch = this.#idleBatches.pop()!;
          const run = await nextOf(source, batch.pages);
          if (run === null) {
            this.#idleBatches.push(batch);
            break;
          }
          const { region, pages } = run;
          this.#manifest.fillPrior(batch, region, pages);
          this.#requireSpace(pages.length);
          const stored = this.#storeBatch(batch, pages.length, false).then(() => {
            this.#manifest.record(batch, region, pages);
            this.#idleBatches.push(batch);
            doneBytes += pages.length * PAGE_BYTES;
            progress?.(doneBytes, null);
          });
          stored.catch(() => {}); // thrown when it is awaited
          inFlight.push(stored);
          if (this.#uncommittedChunks >= this.maxUncommittedChunks) await this.checkpoint({ findable: true });
        }
        for (const stored of inFlight) await stored;
      } catch (error) {
        await Promise.allSettled(inFlight);
        throw error;
      }
    });
  }

  async #storeBatch(batch: PageBatch, count: number, manifest: boolean): Promise<void> {
    const newNumbers = this.#newNumbers();
    const input = { session: this.#session, batch: batch.shared, count, manifest, newNumbers };
    const { spareNumbers, uncommitted } = await this.#worker.do('packBatch', input);
    this.#spareNumbers = spareNumbers;
    this.#uncommittedChunks = uncommitted;
  }

  /** The Worker always has the number of one more pack. */
  #newNumbers(): number[] {
    const numbers = this.#spareNumbers < 1 ? this.context.index.reserveNumbers(1) : [];
    this.#spareNumbers += numbers.length;
    return numbers;
  }

  #requireSpace(pages: number): void {
    this.#pagesUntilSpaceCheck -= pages;
    if (this.#pagesUntilSpaceCheck > 0) return;
    requireFreeSpace(this.context.dir, MIN_FREE_BYTES);
    this.#pagesUntilSpaceCheck = SPACE_CHECK_PAGES;
  }

  /**
   * Finds chunks by fingerprint (8 bytes each) and SHA-256 (32 bytes each). Returns pairs of pack and chunk; 0, 0: not
   * found. The chunks stay in the store until the save ends.
   */
  async locate(fingerprints: Uint8Array, digests: Uint8Array): Promise<Uint32Array> {
    const input = { session: this.#session, fingerprints, digests };
    return this.#step(async () => (await this.#worker.do('packLocate', input)).places);
  }

  /**
   * Stores `count` pages from another store. `digest` is the expected SHA-256 of their SHA-256s. Returns places and
   * fingerprints, as pairs of words. Errors: REMOTE_FAILED.
   */
  async storeReceived(
    pages: Uint8Array,
    count: number,
    digest: Uint8Array,
  ): Promise<{ places: Uint32Array; fingerprints: Uint32Array }> {
    return this.#step(async () => {
      const batch = this.#idleBatches.pop()!;
      batch.pages.set(pages.subarray(0, count * PAGE_BYTES));
      this.#requireSpace(count);
      const newNumbers = this.#newNumbers();
      const input = { session: this.#session, batch: batch.shared, count, digest, newNumbers };
      this.#spareNumbers = (await this.#worker.do('packReceived', input)).spareNumbers;
      this.#idleBatches.push(batch);
      return {
        places: batch.places.slice(0, 2 * count),
        fingerprints: batch.fingerprintWords.slice(0, 2 * count),
      };
    });
  }

  /**
   * Commits the packs so far, without a snapshot. With `findable`, later pages of this save can refer to them. A copy
   * does without: it makes many checkpoints, and knows which chunks it has.
   */
  async checkpoint({ findable = false } = {}): Promise<void> {
    await this.#step(async () => {
      const { packs, segment } = await this.#worker.do('packCheckpoint', { session: this.#session });
      if (packs.length === 0) return;
      this.#isCommitting = true;
      this.context.index.commitPacks(packs, segment);
      this.#isCommitting = false;
      this.#committedPacks.push(...packs);
      if (segment) this.#committedSegments.push(segment);
      await this.#worker.do('packKeep', { session: this.#session, findable });
      this.#uncommittedChunks = 0;
    });
  }

  /** Stores blocks for {@link setBlocks}. The entries have region 0 and block 0. */
  storeBlocks(blocks: readonly ManifestBlock[]): Promise<BlockEntry[]> {
    const toStore = blocks.map((block) => ({ number: 0, block, nonZeroPages: block.nonZeroPages }));
    return this.#step(() => this.#storeBlocks(0, toStore));
  }

  /** Sets the whole manifest: entries of stored blocks, ascending by region and block. */
  setBlocks(regions: readonly Region[], blocks: BlockList): void {
    this.#manifest.setRegions(regions);
    this.#copiedBlocks = blocks;
  }

  /**
   * `origin` is given for a copy. A copy never moves a tag from another snapshot. Errors of a copy: STORE_BUSY,
   * {@link SnapshotExistsError}.
   */
  async commit(metadata: SnapshotMetadata, origin?: SnapshotOrigin): Promise<SaveResult> {
    const result = await this.#step(() => this.#commit(metadata, origin));
    // The snapshot exists now. A failure from here on does not change that.
    this.#state = 'ended';
    await this.#worker.do('packEnd', { session: this.#session }).catch(() => {});
    this.#release();
    try {
      if (result.tag !== null) syncTagFiles(this.context, [result.tag]);
    } catch {
      // The index has the tag. gc writes its file.
    }
    this.lock.release();
    return result;
  }

  async #commit(metadata: SnapshotMetadata, origin?: SnapshotOrigin): Promise<SaveResult> {
    const { context } = this;
    const { regions } = this.#manifest;
    requireCommittable(metadata, regions);
    const { blocks, ownChunks, unchangedPages, references } = await this.#finishManifest();
    const { packs, held, segment } = await this.#worker.do('packSeal', { session: this.#session });
    const ownPacks = [...this.#committedPacks, ...packs];
    const packBytes = ownPacks.reduce((total, pack) => total + pack.sizeBytes, 0);
    const newChunks = ownPacks.reduce((total, { number }) => total + ownChunks.count(number), 0);

    const { tag, state } = metadata;
    const isCopy = origin !== undefined;
    const description = describeSnapshot(
      metadata,
      origin ?? newOrigin(this.parent),
      regions,
      blocks,
      packBytes,
    );
    const { id, parent } = description;
    const { sizeBytes, fd } = await writeSnapshot(context, description, blocks, state, { isCopy });
    this.#file = { id, fd };
    fsyncDirectory(at(context.dir, SNAPSHOTS));
    const row = snapshotRow({ description, sizeBytes });
    this.#isCommitting = true;
    const tagged = context.index.commitSave(
      row,
      tag === null ? null : { label: tag, onlyIfFree: isCopy },
      packs,
      held,
      segment,
    );
    return {
      id,
      tag: tagged ? tag : null,
      movedFrom: tagged?.movedFrom ?? null,
      parent,
      ...countPages(description),
      unchangedPages,
      newChunks,
      reusedChunks: references - newChunks,
      storedBytes: row.storedBytes,
    };
  }

  /** Stores the blocks that are not the parent's. */
  async #finishManifest(): Promise<Manifest> {
    const ownChunks = new ChunkSet();
    if (this.#copiedBlocks)
      return { blocks: this.#copiedBlocks, ownChunks, unchangedPages: 0, references: 0 };
    const blocks = new BlockList();
    let unchangedPages = 0;
    let references = 0;
    for (const region of this.#manifest.regions.keys()) {
      const finished = this.#manifest.finishRegion(region, ownChunks);
      unchangedPages += finished.unchangedPages;
      references += finished.references;
      const entries = [...finished.kept, ...(await this.#storeBlocks(region, finished.toStore))];
      for (const entry of entries.sort((a, b) => a.block - b.block)) blocks.push(entry);
    }
    return { blocks, ownChunks, unchangedPages, references };
  }

  async #storeBlocks(region: number, blocks: readonly BlockToStore[]): Promise<BlockEntry[]> {
    const entries: BlockEntry[] = [];
    const perBatch = BATCH_PAGES / 2;
    for (let i = 0; i < blocks.length; i += perBatch)
      entries.push(...(await this.#storeBlockBatch(region, blocks.slice(i, i + perBatch))));
    return entries;
  }

  /** A block is stored as two pages: fingerprints, then places. */
  async #storeBlockBatch(region: number, blocks: readonly BlockToStore[]): Promise<BlockEntry[]> {
    const batch = this.#idleBatches.pop()!;
    const words = new Uint32Array(batch.shared);
    const wordsPerPage = PAGE_BYTES / 4;
    blocks.forEach(({ block }, i) => {
      words.set(block.fingerprints, 2 * i * wordsPerPage);
      words.set(block.places, (2 * i + 1) * wordsPerPage);
    });
    batch.priorPlaces.fill(0);
    this.#requireSpace(blocks.length * 2);
    await this.#storeBatch(batch, blocks.length * 2, true);
    const placeAt = (i: number): Place => ({ pack: batch.places[2 * i]!, chunk: batch.places[2 * i + 1]! });
    const { buffer, byteOffset } = batch.fingerprintWords;
    const digests = new BigUint64Array(buffer, byteOffset, BATCH_PAGES);
    const entries = blocks.map(({ number, nonZeroPages }, i) => ({
      region,
      block: number,
      nonZeroPages,
      fingerprints: placeAt(2 * i),
      places: placeAt(2 * i + 1),
      digest: digests[2 * i]!,
    }));
    this.#idleBatches.push(batch);
    return entries;
  }

  /** Runs one call of the session. After a failure, only `abort` and `suspend` are left. */
  async #step<T>(work: () => Promise<T>): Promise<T> {
    if (this.#state !== 'open')
      throw new LivesnapError('NOT_POSSIBLE_NOW', `the save has already ${this.#state}`, {
        hint: 'Begin a new save.',
      });
    try {
      return await this.context.guarded(work);
    } catch (error) {
      this.#state = 'failed';
      this.#failure = error;
      throw error;
    }
  }

  abort(): Promise<void> {
    return this.#end({ keepCommitted: false });
  }

  /** Like {@link abort}, but the packs of checkpoints stay for another attempt. */
  suspend(): Promise<void> {
    return this.#end({ keepCommitted: true });
  }

  async #end({ keepCommitted }: { keepCommitted: boolean }): Promise<void> {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    // Only a transaction that failed for lack of space is certain to be undone. Else the files are left to gc.
    const mayBeCommitted =
      this.#isCommitting && !(this.#failure instanceof LivesnapError && this.#failure.code === 'NO_SPACE');
    try {
      if (!keepCommitted && !mayBeCommitted) this.#removeCommitted();
    } catch {
      // No snapshot needs the packs: gc deletes them.
    }
    try {
      if (this.#file && !mayBeCommitted) removeIfThere(at(this.context.dir, snapshotFile(this.#file.id)));
      await this.#worker.do(mayBeCommitted ? 'packEnd' : 'packAbort', { session: this.#session });
    } catch {
      // The index lists none of the files: gc deletes them.
    } finally {
      this.#release();
      this.lock.release();
    }
  }

  /** Removes what checkpoints have committed. No other save refers to the packs: they are locked by this one. */
  #removeCommitted(): void {
    const { index, dir } = this.context;
    for (const { number, generation } of index.removePacks(this.#committedPacks))
      removeIfThere(at(dir, packFile(number, generation)));
    // If a segment has been merged, its entries stay in the merged one until the next gc.
    for (const { number } of this.#committedSegments)
      if (index.replaceSegments([number], [])) unlinkUnlessLocked(at(dir, segmentFile(number)));
  }

  /** From now on gc may delete chunks that only this save needed. */
  #release(): void {
    this.#packs.close();
    // A batch that was in flight when a step failed is not reused: the Worker may still work on it.
    for (const batch of this.#idleBatches.splice(0)) releaseBatch(batch);
    if (this.#file) closeSync(this.#file.fd);
    this.#file = null;
    this.openedParent?.pin.release();
  }
}

/** An error of the source is not an error of the store. */
async function nextOf(source: PageSource, into: Uint8Array): Promise<PageRun | null> {
  try {
    return await source.next(into);
  } catch (error) {
    throw notOfStore(error);
  }
}
