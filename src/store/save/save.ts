/**
 * A save: pages in, a snapshot out (docs/format.md, "Saving").
 *
 * Thread: the one that opened the store, because it owns the database. It deduplicates and stores the pages, batch by
 * batch; native threads encode and compare. Batches are stored in the order of the source, so the last copy of a page
 * wins.
 *
 * Invariants:
 * - Before `commit` resolves, the snapshot is not visible. Afterwards it survives a power failure.
 * - A save that fails or is aborted deletes its files.
 * - gc deletes no chunk that the save refers to: the bases are pinned, and other packs are locked (pack-holds.ts).
 */
import { closeSync, renameSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { syncFiles } from '../../native/files.js';
import {
  BATCH_PAGES,
  PAGE_BYTES,
  type PageRun,
  type PageSource,
  type Progress,
  type Region,
  type SavedRegion,
  type SaveResult,
  type SaveSession,
  type SnapshotMetadata,
} from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { unlinkUnlessLocked } from '../disk/file-locks.js';
import {
  at,
  fsyncDirectories,
  fsyncDirectory,
  PACKS,
  packFile,
  removeIfThere,
  requireFreeSpace,
  SEGMENTS,
  SNAPSHOTS,
  storeError,
} from '../disk/layout.js';
import { notOfStore } from '../disk/store-error.js';
import type { StoreLock } from '../disk/store-lock.js';
import { type PackRow, snapshotRow } from '../index/index-database.js';
import type { PackSet } from '../pack/pack-set.js';
import { type SegmentRow, segmentFile } from '../segment/segment-file.js';
import { type BlockEntry, BlockList } from '../snapshot/block-list.js';
import { ChunkSet } from '../snapshot/chunk-set.js';
import type { ManifestBlock } from '../snapshot/manifest.js';
import { snapshotFile, type WrittenSnapshot, writeUnnamedSnapshot } from '../snapshot/snapshot-file.js';
import { requireTagLabels, syncTagFiles } from '../tags.js';
import { BATCHES_IN_FLIGHT } from '../worker/page-pool.js';
import { Bases } from './bases.js';
import {
  countPages,
  describeSnapshot,
  newOrigin,
  requireCommittable,
  type SnapshotOrigin,
  writeCopiedSnapshot,
} from './commit.js';
import { type BlockToStore, ManifestBuilder } from './manifest-builder.js';
import { BLOCKS_PER_BATCH, MIN_FREE_BYTES, PackingSession } from './packing-session.js';

/**
 * New chunks (4 GB) that a save keeps in a table in memory. Beyond that it makes a checkpoint: their packs are
 * committed without a snapshot, and found by their segment. So the memory of a save hardly grows with what it stores (2
 * MiB of filters per checkpoint). With the batches in flight there are fewer than 2^20 chunks, for which the table need
 * not grow again.
 */
const MAX_UNCOMMITTED_CHUNKS = 1_000_000;

/** The blocks of a snapshot, with counts of its pages. */
interface Manifest {
  readonly blocks: BlockList;
  /** Pages that have the place of the base, and other pages that are not zero. */
  readonly unchangedPages: number;
  readonly references: number;
  /** The distinct chunks of the latter. */
  readonly ownChunks: ChunkSet;
  /** Those of the latter whose bytes are the base's. */
  readonly movedPages: number;
}

export class Save implements SaveSession {
  readonly #packing: PackingSession;
  /** For reading blocks of the bases. */
  readonly #packs: PackSet;
  readonly #manifest: ManifestBuilder;
  /** Set for a copy, which brings whole blocks. */
  #copiedBlocks: BlockList | null = null;
  /** Packs and segments that checkpoints have committed. */
  readonly #committedPacks: PackRow[] = [];
  readonly #committedSegments: SegmentRow[] = [];
  #state: 'open' | 'failed' | 'ended' = 'open';
  #file: WrittenSnapshot | null = null;
  /** Whether the directory of the snapshots may name a file of this save, on the disk or in memory. */
  #mayHaveFile = false;
  /** A transaction has begun and not succeeded. Even if it failed, it may be in SQLite's log. */
  #isCommitting = false;
  #failure: unknown = null;

  private constructor(
    readonly context: StoreContext,
    readonly lock: StoreLock,
    readonly openedBases: Bases,
    readonly maxUncommittedChunks: number,
  ) {
    this.#packing = new PackingSession(context);
    this.#packs = context.packSet();
    this.#manifest = new ManifestBuilder(context.ops, this.#packs, (region) => openedBases.of(region));
  }

  get parent(): string | null {
    return this.openedBases.parent;
  }

  get bases(): readonly (number | null)[] {
    return this.openedBases.chosen;
  }

  /** A region without a base, or whose bases are removed or damaged, is stored in full. Errors: READ_ONLY, NO_SPACE, STORE_BUSY. */
  static async begin(
    context: StoreContext,
    regions: readonly SavedRegion[],
    maxUncommittedChunks = MAX_UNCOMMITTED_CHUNKS,
  ): Promise<Save> {
    context.requireWrite();
    const lock = await context.lock('shared');
    let bases: Bases | null = null;
    try {
      requireFreeSpace(context.dir, MIN_FREE_BYTES);
      bases = Bases.open(context, regions);
      const save = new Save(context, lock, bases, maxUncommittedChunks);
      await save.#packing.begin();
      return save;
    } catch (error) {
      bases?.release();
      lock.release();
      throw storeError(context.dir, error);
    }
  }

  async store(source: PageSource, progress?: Progress): Promise<void> {
    await this.#step(async () => {
      this.#manifest.setRegions(source.regions);
      const packing = this.#packing;
      const sequential = new Set(source.sequential);
      const inFlight: Promise<void>[] = [];
      const settle = async (): Promise<void> => {
        while (inFlight.length > 0) await inFlight.shift();
      };
      let doneBytes = 0;
      try {
        for (;;) {
          if (inFlight.length === BATCHES_IN_FLIGHT) await inFlight.shift();
          const batch = packing.acquireBatch();
          const run = await nextOf(source, batch.pages);
          if (run === null) {
            packing.releaseBatch(batch);
            break;
          }
          const { region, pages } = run;
          if (pages.length === 0) {
            packing.releaseBatch(batch);
            await settle();
            continue;
          }
          const finished = this.#manifest.finishedBlocksOf(region, pages);
          if (finished.length > 0) await settle(); // this takes a batch
          for (const block of finished) await this.#reopen(region, block);
          this.#manifest.fillPrior(batch, region, pages);
          const stored = packing.store(batch, pages.length).then(() => {
            this.#manifest.record(batch, region, pages);
            packing.releaseBatch(batch);
            doneBytes += pages.length * PAGE_BYTES;
            progress?.(doneBytes, null);
          });
          stored.catch(() => {}); // thrown when it is awaited
          inFlight.push(stored);
          if (packing.uncommittedChunks >= this.maxUncommittedChunks)
            await this.checkpoint({ findable: true });
          if (sequential.has(region) && this.#manifest.unfinishedCount(region) > BLOCKS_PER_BATCH) {
            await settle();
            await this.#finishBlocks(region, { exceptLast: true });
          }
        }
        await settle();
      } catch (error) {
        await Promise.allSettled(inFlight);
        throw error;
      }
    });
  }

  /**
   * Finds chunks by fingerprint (8 bytes each) and digest (32 bytes each, all under the ID `id`). Returns pairs of pack and
   * chunk; 0, 0: not found. The chunks stay in the store until the save ends.
   */
  async locate(fingerprints: Uint8Array, digests: Uint8Array, id: number): Promise<Uint32Array> {
    return this.#step(() => this.#packing.locate(fingerprints, digests, id));
  }

  /**
   * Stores pages from another store. `ids`: the ID of each page's digest. `digest`: the expected SHA-256 of their digests.
   * Returns places and fingerprints, as pairs of words. Errors: REMOTE_FAILED.
   */
  async storeReceived(
    pages: Uint8Array,
    ids: Uint8Array,
    digest: Uint8Array,
  ): Promise<{ places: Uint32Array; fingerprints: Uint32Array }> {
    return this.#step(() => this.#packing.storeReceived(pages, ids, digest));
  }

  /**
   * Commits the packs so far, without a snapshot. With `findable`, later pages of this save can refer to them. A copy
   * does without: it makes many checkpoints, and knows which chunks it has.
   */
  async checkpoint({ findable = false } = {}): Promise<void> {
    await this.#step(async () => {
      const { packs, segment, unsynced } = await this.#packing.checkpoint();
      if (packs.length === 0) return;
      this.#sync(unsynced);
      this.#isCommitting = true;
      this.context.index.commitPacks(packs, segment);
      this.#isCommitting = false;
      this.#committedPacks.push(...packs);
      if (segment) this.#committedSegments.push(segment);
      await this.#packing.keep(findable);
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
   * `origin` is given for a copy. A copy never moves tags from other snapshots. Errors of a copy: STORE_BUSY,
   * {@link SnapshotExistsError}.
   */
  async commit(metadata: SnapshotMetadata, origin?: SnapshotOrigin): Promise<SaveResult> {
    const result = await this.#step(() => this.#commit(metadata, origin));
    // The snapshot exists now. A failure from here on does not change that.
    this.#state = 'ended';
    await this.#packing.end().catch(() => {});
    this.#release();
    try {
      syncTagFiles(this.context, result.tags);
    } catch {
      // The index has the tags. gc writes their files.
    }
    this.lock.release();
    return result;
  }

  async #commit(metadata: SnapshotMetadata, origin?: SnapshotOrigin): Promise<SaveResult> {
    const { context } = this;
    const { regions } = this.#manifest;
    requireCommittable(metadata, regions);
    const { blocks, ownChunks, unchangedPages, references, movedPages } = await this.#finishManifest();
    const { packs, held, segment, unsynced } = await this.#packing.seal();
    const ownPacks = [...this.#committedPacks, ...packs];
    const packBytes = ownPacks.reduce((total, pack) => total + pack.sizeBytes, 0);
    // A chunk of a finished block that was reopened and changed is counted, though no page refers to it any more.
    const written = ownPacks.reduce((total, { number }) => total + ownChunks.count(number), 0);
    const changed = references - movedPages;
    const newChunks = Math.min(written - movedPages, changed);

    const { state } = metadata;
    const isCopy = origin !== undefined;
    const description = describeSnapshot(
      metadata,
      origin ?? newOrigin(this.parent),
      regions,
      blocks,
      packBytes,
    );
    const { id, parent } = description;
    this.#mayHaveFile = true;
    if (isCopy) {
      this.#sync(unsynced);
      this.#file = await writeCopiedSnapshot(context, description, blocks, state);
    } else {
      this.#file = writeUnnamedSnapshot(context.dir, description, blocks, state);
      this.#sync(unsynced, this.#file);
      const path = at(context.dir, snapshotFile(id));
      renameSync(this.#file.path, path);
      this.#file = { ...this.#file, path };
    }
    fsyncDirectory(at(context.dir, SNAPSHOTS));
    const row = snapshotRow({ description, sizeBytes: this.#file.sizeBytes });
    this.#isCommitting = true;
    const set = { labels: requireTagLabels(metadata.tags), onlyIfFree: isCopy };
    const { tags, movedTags } = context.index.commitSave(row, set, packs, held, segment);
    return {
      id,
      tags,
      movedTags,
      parent,
      ...countPages(description),
      unchangedPages: unchangedPages + movedPages,
      newChunks,
      reusedChunks: changed - newChunks,
      storedBytes: row.storedBytes,
    };
  }

  /**
   * Makes what was written survive a power cut: packs, segments and the snapshot's file, then the names of packs and
   * segments. Only then may `snapshots/` name the snapshot, else a repair without the index could list it without its
   * packs.
   */
  #sync(unsynced: readonly number[], snapshot?: WrittenSnapshot): void {
    const { dir } = this.context;
    syncFiles(snapshot ? [...unsynced, snapshot.fd] : unsynced);
    if (unsynced.length > 0) fsyncDirectories([at(dir, PACKS), at(dir, SEGMENTS)]);
  }

  /** Stores the blocks that are not those of the bases. */
  async #finishManifest(): Promise<Manifest> {
    if (this.#copiedBlocks)
      return {
        blocks: this.#copiedBlocks,
        ownChunks: new ChunkSet(),
        unchangedPages: 0,
        references: 0,
        movedPages: 0,
      };
    const blocks = new BlockList();
    for (const region of this.#manifest.regions.keys()) {
      await this.#cut(region);
      await this.#moveScattered(region);
      await this.#finishBlocks(region, { exceptLast: false });
      for (const entry of this.#manifest.entries(region)) blocks.push(entry);
    }
    const { ownChunks, unchangedPages, references, movedPages } = this.#manifest;
    return { blocks, ownChunks, unchangedPages, references, movedPages };
  }

  /** Stores pages of the base together that lie scattered over many frames. */
  async #moveScattered(region: number): Promise<void> {
    const manifest = this.#manifest;
    const scattered = Uint32Array.from(manifest.scatteredPages(region));
    for (let i = 0; i < scattered.length; i += BATCH_PAGES) {
      const pages = scattered.subarray(i, i + BATCH_PAGES);
      const batch = this.#packing.acquireBatch();
      manifest.fillPrior(batch, region, pages);
      await this.#packing.storeAgain(batch, pages.length);
      manifest.recordMoved(batch, region, pages);
      this.#packing.releaseBatch(batch);
    }
  }

  async #finishBlocks(region: number, which: { exceptLast: boolean }): Promise<void> {
    const manifest = this.#manifest;
    const toStore = manifest.finish(region, manifest.unfinished(region, which));
    manifest.setStored(region, toStore, await this.#storeBlocks(region, toStore));
  }

  /** Makes a block changeable that was stored already. */
  async #reopen(region: number, number: number): Promise<void> {
    const entry = this.#manifest.storedEntry(region, number);
    this.#manifest.reopen(region, number, entry && (await this.#packing.readBlock(entry)));
  }

  /** If the base is longer than the region, nothing of it stays beyond the end. */
  async #cut(region: number): Promise<void> {
    const manifest = this.#manifest;
    const number = manifest.blockToCut(region);
    if (number === null) return;
    const last = manifest.cut(region, number);
    if (!last) return;
    const batch = this.#packing.acquireBatch();
    batch.pages.fill(0, 0, PAGE_BYTES).set(last.bytes);
    const pages = Uint32Array.of(last.page);
    manifest.fillPrior(batch, region, pages);
    await this.#packing.store(batch, 1);
    manifest.record(batch, region, pages);
    this.#packing.releaseBatch(batch);
  }

  async #storeBlocks(region: number, blocks: readonly BlockToStore[]): Promise<BlockEntry[]> {
    const entries: BlockEntry[] = [];
    for (let i = 0; i < blocks.length; i += BLOCKS_PER_BATCH) {
      const part = blocks.slice(i, i + BLOCKS_PER_BATCH);
      const stored = await this.#packing.storeBlocks(part);
      part.forEach(({ number, nonZeroPages }, j) => {
        entries.push({ region, block: number, nonZeroPages, ...stored[j]! });
      });
    }
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
    const isFileGone = !mayBeCommitted && this.#removeFile();
    try {
      if (!keepCommitted && isFileGone) this.#removeCommitted();
    } catch {
      // No snapshot needs the packs: gc deletes them.
    }
    try {
      await (isFileGone ? this.#packing.abort() : this.#packing.end());
    } catch {
      // The index lists none of the files: gc deletes them.
    } finally {
      this.#release();
      this.lock.release();
    }
  }

  /**
   * Removes the snapshot's file, if there may be one, before any of its packs: else a power cut could leave the file
   * alone, and a repair without the index would list a damaged snapshot. False when that failed: gc deletes the file,
   * and the packs after it.
   */
  #removeFile(): boolean {
    if (!this.#mayHaveFile) return true;
    const { dir } = this.context;
    try {
      if (this.#file) removeIfThere(this.#file.path);
      fsyncDirectory(at(dir, SNAPSHOTS));
      return true;
    } catch {
      return false;
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
    this.#packing.releaseBatches();
    if (this.#file) closeSync(this.#file.fd);
    this.#file = null;
    this.openedBases.release();
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
