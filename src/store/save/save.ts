/**
 * A save: pages in, a snapshot out (docs/format.md, "Saving").
 *
 * Runs on the caller's thread, which owns the database; the page work is done by a page Worker, fed batches. Batches
 * are answered in the order they were given, so of a page given twice the later one counts.
 *
 * Invariants: nothing is visible before `commit` resolves and everything is afterwards; a save that fails or is given
 * up takes its files with it. No chunk that it refers to goes away meanwhile: its parent is pinned, other packs are held
 * (pack-holds.ts).
 */
import { randomBytes } from 'node:crypto';
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
import { packList } from '../context.js';
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
import { Pin } from '../pins.js';
import { type SegmentRow, segmentFile } from '../segment/segment-file.js';
import { type BlockEntry, BlockList, type Place } from '../snapshot/block-list.js';
import { ChunkSet } from '../snapshot/chunk-set.js';
import {
  areRegions,
  type DescribedRegion,
  isDescribable,
  pagesOf,
  type SnapshotDescription,
} from '../snapshot/description.js';
import type { ManifestBlock } from '../snapshot/manifest.js';
import {
  MAX_STATE_BYTES,
  readSnapshotFile,
  type SnapshotFile,
  snapshotFile,
  writeSnapshotFile,
} from '../snapshot/snapshot-file.js';
import { requireTagLabel, syncTagFiles } from '../tags.js';
import type { PageBatch } from '../worker/page-batch.js';
import { giveBatch, newSession, type PageWorker, pageWorker, takeBatch } from '../worker/page-pool.js';
import { type BlockToStore, ManifestDraft } from './manifest-draft.js';
import { makeRoom } from './room-for-snapshot.js';

/** Batches on their way at once: enough that neither thread waits for the other. */
const BATCHES_IN_FLIGHT = 4;
/** Room that must be left before each so many bytes of pages: they may all be new. */
const SPACE_CHECK_PAGES = 16 * BATCH_PAGES;
const MIN_FREE_BYTES = 1 << 20;
/**
 * New chunks (4 GB) that are found by a table in memory. When there are more they are committed as packs without a
 * snapshot, and found by their segments: what a save takes hardly grows with what it stores (the filters do, by 2 MiB).
 * With those that are on their way they are fewer than 2^20, for which the tables, which double, have room.
 */
const MAX_UNCOMMITTED_CHUNKS = 1_000_000;

/** What a copy of a snapshot has of its original. */
export type SnapshotOrigin = Pick<SnapshotDescription, 'id' | 'parent' | 'createdAt'>;

export class Save implements SaveSession {
  readonly #worker: PageWorker = pageWorker(0);
  readonly #session = newSession();
  /** Where the parent's blocks are read from. */
  readonly #packs: PackSet;
  readonly #draft: ManifestDraft;
  readonly #free: PageBatch[] = [];
  /** Of a snapshot that is put together from blocks. */
  #placed: BlockList | null = null;
  #spareNumbers = 0;
  #pagesSinceSpaceCheck = 0;
  /** Packs and segments that checkpoints have committed. */
  readonly #keptPacks: PackRow[] = [];
  readonly #keptSegments: SegmentRow[] = [];
  #uncommittedChunks = 0;
  #state: 'open' | 'failed' | 'ended' = 'open';
  /** The snapshot's file; its lock is this save's until it ends. */
  #written: { id: string; fd: number } | null = null;
  #commitTried = false;
  #failure: unknown = null;

  private constructor(
    readonly context: StoreContext,
    readonly lock: StoreLock,
    readonly parentPin: Pin | null,
    readonly parentFile: SnapshotFile | null,
    readonly maxUncommittedChunks: number,
  ) {
    this.#packs = context.packSet();
    this.#draft = new ManifestDraft(context.ops, this.#packs, parentFile);
    for (let i = 0; i < BATCHES_IN_FLIGHT; i++) this.#free.push(takeBatch());
  }

  get parent(): string | null {
    return this.parentFile?.description.id ?? null;
  }

  /** Errors: READ_ONLY, NO_SPACE, STORE_BUSY. A parent that is gone or damaged makes the save a full one. */
  static async begin(
    context: StoreContext,
    parent: string | null,
    maxUncommittedChunks = MAX_UNCOMMITTED_CHUNKS,
  ): Promise<Save> {
    context.requireWrite();
    const lock = await context.lock('shared');
    let pin: Pin | null = null;
    try {
      requireFreeSpace(context.dir, MIN_FREE_BYTES);
      pin = pinParent(context, parent);
      const file = pin && readParent(context, pin.summary.id);
      const save = new Save(context, lock, pin, file, maxUncommittedChunks);
      await save.#beginPacking();
      return save;
    } catch (error) {
      pin?.release();
      lock.release();
      throw storeError(context.dir, error);
    }
  }

  /** Segments that were merged by somebody between being listed and being mapped are asked for once more. */
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
      segments = index.segments();
      const listed = new Set(segments.map(({ number }) => number));
      // One that is listed still, and cannot be read, is done without.
      if (missing.every((number) => listed.has(number))) return;
    }
  }

  async store(source: PageSource, progress?: Progress): Promise<void> {
    await this.#step(async () => {
      this.#draft.adopt(source.regions);
      const inFlight: Promise<void>[] = [];
      let doneBytes = 0;
      try {
        for (;;) {
          if (inFlight.length === BATCHES_IN_FLIGHT) await inFlight.shift();
          const batch = this.#free.pop()!;
          const run = await nextOf(source, batch.pages);
          if (run === null) {
            this.#free.push(batch);
            break;
          }
          const { region, pages } = run;
          this.#draft.fillPrior(batch, region, pages);
          await this.#requireSpace(pages.length);
          const handed = this.#hand(batch, pages.length, false).then(() => {
            this.#draft.takeOver(batch, region, pages);
            this.#free.push(batch);
            doneBytes += pages.length * PAGE_BYTES;
            progress?.(doneBytes, null);
          });
          handed.catch(() => {}); // met when it is awaited, below
          inFlight.push(handed);
          if (this.#uncommittedChunks >= this.maxUncommittedChunks) await this.checkpoint({ findable: true });
        }
        for (const handed of inFlight) await handed;
      } catch (error) {
        await Promise.allSettled(inFlight);
        throw error;
      }
    });
  }

  /** Hands a batch to the Worker, with numbers for the packs it may have to begin. */
  async #hand(batch: PageBatch, count: number, manifest: boolean): Promise<void> {
    const newNumbers = this.#newNumbers();
    const ask = { session: this.#session, batch: batch.shared, count, manifest, newNumbers };
    const { spareNumbers, uncommitted } = await this.#worker.do('packBatch', ask);
    this.#spareNumbers = spareNumbers;
    this.#uncommittedChunks = uncommitted;
  }

  /** There is always a number for one more pack. */
  #newNumbers(): number[] {
    const numbers = this.#spareNumbers < 1 ? this.context.index.reserveNumbers(1) : [];
    this.#spareNumbers += numbers.length;
    return numbers;
  }

  async #requireSpace(pages: number): Promise<void> {
    this.#pagesSinceSpaceCheck -= pages;
    if (this.#pagesSinceSpaceCheck > 0) return;
    requireFreeSpace(this.context.dir, MIN_FREE_BYTES);
    this.#pagesSinceSpaceCheck = SPACE_CHECK_PAGES;
  }

  /**
   * Finds chunks by fingerprint (8 bytes each) and SHA-256 (32): pairs of pack and chunk, 0, 0 for what is not here.
   * What is found stays until the save has ended.
   */
  async locate(fingerprints: Uint8Array, digests: Uint8Array): Promise<Uint32Array> {
    const ask = { session: this.#session, fingerprints, digests };
    return this.#step(async () => (await this.#worker.do('packLocate', ask)).places);
  }

  /**
   * Stores `count` pages that came from elsewhere; `digest` must be the SHA-256 of their SHA-256s. Gives fingerprints
   * and places, as pairs of words. Errors: REMOTE_FAILED.
   */
  async storeReceived(
    pages: Uint8Array,
    count: number,
    digest: Uint8Array,
  ): Promise<{ places: Uint32Array; fingerprints: Uint32Array }> {
    return this.#step(async () => {
      const batch = this.#free.pop()!;
      batch.pages.set(pages.subarray(0, count * PAGE_BYTES));
      await this.#requireSpace(count);
      const newNumbers = this.#newNumbers();
      const ask = { session: this.#session, batch: batch.shared, count, digest, newNumbers };
      this.#spareNumbers = (await this.#worker.do('packReceived', ask)).spareNumbers;
      this.#free.push(batch);
      return {
        places: batch.places.slice(0, 2 * count),
        fingerprints: batch.fingerprintWords.slice(0, 2 * count),
      };
    });
  }

  /**
   * Commits what has been stored so far without a snapshot. Unless `findable`, this save does not look for these chunks
   * any more: a copy, which goes on from here when it is cut, knows what it has, and makes many.
   */
  async checkpoint({ findable = false } = {}): Promise<void> {
    await this.#step(async () => {
      const { packs, segment } = await this.#worker.do('packCheckpoint', { session: this.#session });
      if (packs.length === 0) return;
      this.#commitTried = true;
      this.context.index.commitPacks(packs, segment);
      this.#commitTried = false;
      this.#keptPacks.push(...packs);
      if (segment) this.#keptSegments.push(segment);
      await this.#worker.do('packKeep', { session: this.#session, findable });
      this.#uncommittedChunks = 0;
    });
  }

  /** Stores blocks of a snapshot that is put together from blocks. Their entries are of no region, and block 0. */
  storeBlocks(blocks: readonly ManifestBlock[]): Promise<BlockEntry[]> {
    const toStore = blocks.map((block) => ({ number: 0, block, nonZeroPages: block.nonZeroPages }));
    return this.#step(() => this.#storeBlocks(0, toStore));
  }

  /** Says what the blocks of the snapshot are: entries of blocks that this save has stored, in the order of a file. */
  setBlocks(regions: readonly Region[], blocks: BlockList): void {
    this.#draft.adopt(regions);
    this.#placed = blocks;
  }

  /**
   * `origin`: what a copy keeps of the snapshot it is of. A copy takes its tag from no other snapshot. Errors of a copy:
   * STORE_BUSY, {@link IsThereError}.
   */
  async commit(metadata: SnapshotMetadata, origin?: SnapshotOrigin): Promise<SaveResult> {
    const result = await this.#step(async () => {
      if (metadata.tag !== null) requireTagLabel(metadata.tag);
      if (metadata.state.length > MAX_STATE_BYTES) throw new RangeError('the state is larger than 64 MiB');
      const { regions } = this.#draft;
      if (!areRegions(regions)) throw new RangeError('the regions have bad names or sizes');
      const counts = { pages: 0, zeroPages: 0, unchangedPages: 0, references: 0 };
      const ownChunks = new ChunkSet();
      const blocks = this.#placed ?? new BlockList();
      if (!this.#placed)
        for (const region of regions.keys())
          for (const entry of await this.#finishRegion(region, counts, ownChunks)) blocks.push(entry);
      const nonZeroPages = regions.map(() => 0);
      for (const entry of blocks) nonZeroPages[entry.region]! += entry.nonZeroPages;
      const described: DescribedRegion[] = regions.map(({ name, sizeBytes }, i) => {
        return { name, sizeBytes, nonZeroPages: nonZeroPages[i]! };
      });
      for (const { sizeBytes, nonZeroPages } of described) {
        counts.pages += pagesOf(sizeBytes);
        counts.zeroPages += pagesOf(sizeBytes) - nonZeroPages;
      }
      const { packs, held, segment } = await this.#worker.do('packSeal', { session: this.#session });
      const ownPacks = [...this.#keptPacks, ...packs];
      const newChunks = ownPacks.reduce((total, { number }) => total + ownChunks.count(number), 0);

      const { id, parent, createdAt } = origin ?? {
        id: randomBytes(16).toString('hex'),
        parent: this.parent,
        createdAt: new Date().toISOString(),
      };
      const packBytes = ownPacks.reduce((total, pack) => total + pack.sizeBytes, 0);
      const { kind, vm, tag, memoryBytes, diskBytes, machine, host } = metadata;
      const description = {
        id,
        kind,
        vm,
        parent,
        createdAt,
        memoryBytes,
        diskBytes,
        packBytes,
        regions: described,
        machine,
        host,
      };
      if (!isDescribable(description))
        throw new RangeError('the description of the machine is too long or nested too deeply');
      const write = () => writeSnapshotFile(this.context.dir, description, blocks, metadata.state);
      const { sizeBytes, fd } = origin ? await this.#inTheRoomOf(id, write) : write();
      this.#written = { id, fd };
      fsyncDirectory(at(this.context.dir, SNAPSHOTS));
      const row = snapshotRow({ description, sizeBytes });
      this.#commitTried = true;
      const tagged = this.context.index.commitSave(
        row,
        tag === null ? null : { label: tag, onlyIfFree: origin !== undefined },
        packs,
        held,
        segment,
      );
      return {
        id,
        tag: tagged ? tag : null,
        movedFrom: tagged?.movedFrom ?? null,
        parent,
        pages: counts.pages,
        zeroPages: counts.zeroPages,
        unchangedPages: counts.unchangedPages,
        newChunks,
        reusedChunks: counts.references - newChunks,
        storedBytes: row.storedBytes,
      };
    });
    // The snapshot exists. What follows may fail without taking it back.
    this.#state = 'ended';
    await this.#worker.do('packEnd', { session: this.#session }).catch(() => {});
    this.#letGo();
    try {
      if (result.tag !== null) syncTagFiles(this.context, [result.tag]);
    } catch {
      // The index has the tag; its file is made good by gc.
    }
    this.lock.release();
    return result;
  }

  /** Writes the file of a copy; another copy of the snapshot may be faster at any moment. */
  async #inTheRoomOf<T>(id: string, write: () => T): Promise<T> {
    for (;;) {
      await makeRoom(this.context, id);
      try {
        return write();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
  }

  /** Stores the blocks of a region that are not the parent's, and counts its pages. */
  async #finishRegion(
    region: number,
    counts: { unchangedPages: number; references: number },
    ownChunks: ChunkSet,
  ): Promise<BlockEntry[]> {
    const { kept, toStore, unchangedPages, references } = this.#draft.finish(region, ownChunks);
    counts.unchangedPages += unchangedPages;
    counts.references += references;
    const entries = kept;
    const perBatch = BATCH_PAGES / 2;
    for (let i = 0; i < toStore.length; i += perBatch)
      entries.push(...(await this.#storeBlocks(region, toStore.slice(i, i + perBatch))));
    return entries.sort((a, b) => a.block - b.block);
  }

  /** Blocks go the way of pages: fingerprint page, then places page. */
  async #storeBlocks(region: number, blocks: readonly BlockToStore[]): Promise<BlockEntry[]> {
    const batch = this.#free.pop()!;
    const words = new Uint32Array(batch.shared);
    const wordsPerPage = PAGE_BYTES / 4;
    blocks.forEach(({ block }, i) => {
      words.set(block.fingerprints, 2 * i * wordsPerPage);
      words.set(block.places, (2 * i + 1) * wordsPerPage);
    });
    batch.priorPlaces.fill(0);
    await this.#requireSpace(blocks.length * 2);
    await this.#hand(batch, blocks.length * 2, true);
    const placeAt = (i: number): Place => ({ pack: batch.places[2 * i]!, chunk: batch.places[2 * i + 1]! });
    const digests = new BigUint64Array(
      batch.fingerprintWords.buffer,
      batch.fingerprintWords.byteOffset,
      BATCH_PAGES,
    );
    const entries = blocks.map(({ number, nonZeroPages }, i) => ({
      region,
      block: number,
      nonZeroPages,
      fingerprints: placeAt(2 * i),
      places: placeAt(2 * i + 1),
      digest: digests[2 * i]!,
    }));
    this.#free.push(batch);
    return entries;
  }

  async #step<T>(work: () => Promise<T>): Promise<T> {
    if (this.#state !== 'open')
      throw new LivesnapError('NOT_POSSIBLE_NOW', 'the save has ended or failed', {
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
    return this.#giveUp({ keepCommitted: false });
  }

  /** As {@link abort}, but what checkpoints have committed stays for another attempt. */
  suspend(): Promise<void> {
    return this.#giveUp({ keepCommitted: true });
  }

  async #giveUp({ keepCommitted }: { keepCommitted: boolean }): Promise<void> {
    if (this.#state === 'ended') return;
    this.#state = 'ended';
    // A commit that failed otherwise than for want of room may yet be in SQLite's log: then the files stay, for gc.
    const mayBeCommitted =
      this.#commitTried && !(this.#failure instanceof LivesnapError && this.#failure.code === 'NO_SPACE');
    try {
      if (!keepCommitted && !mayBeCommitted) this.#takeBack();
    } catch {
      // They are packs that no snapshot needs, and gc's.
    }
    try {
      if (this.#written && !mayBeCommitted)
        removeIfThere(at(this.context.dir, snapshotFile(this.#written.id)));
      await this.#worker.do(mayBeCommitted ? 'packEnd' : 'packAbort', { session: this.#session });
    } catch {
      // What is left is an orphan, and gc's.
    } finally {
      this.#letGo();
      this.lock.release();
    }
  }

  /** Takes back what checkpoints have committed: this save holds the packs, so nobody can have begun to use them. */
  #takeBack(): void {
    const { index, dir } = this.context;
    for (const { number, generation } of index.removePacks(this.#keptPacks))
      removeIfThere(at(dir, packFile(number, generation)));
    // Of one that was merged meanwhile entries stay behind, until gc comes.
    for (const { number } of this.#keptSegments)
      if (index.replaceSegments([number], [])) unlinkUnlessLocked(at(dir, segmentFile(number)));
  }

  /** From now on gc may take what nothing but this save held. */
  #letGo(): void {
    this.#packs.close();
    // One that was on its way when a step failed is not among them.
    for (const batch of this.#free.splice(0)) giveBatch(batch);
    if (this.#written) closeSync(this.#written.fd);
    this.#written = null;
    this.parentPin?.release();
  }
}

/** What a source throws is its own: the store is not at fault. */
async function nextOf(source: PageSource, into: Uint8Array): Promise<PageRun | null> {
  try {
    return await source.next(into);
  } catch (error) {
    throw notOfStore(error);
  }
}

function pinParent(context: StoreContext, parent: string | null): Pin | null {
  if (parent === null) return null;
  try {
    return Pin.take(context, () => {
      if (!context.index.has(parent)) throw new LivesnapError('NO_SUCH_SNAPSHOT', 'the parent is gone');
      return parent;
    });
  } catch (error) {
    if (error instanceof LivesnapError && error.code === 'NO_SUCH_SNAPSHOT') return null;
    throw error;
  }
}

function readParent(context: StoreContext, parent: string): SnapshotFile | null {
  try {
    return readSnapshotFile(context.dir, parent);
  } catch (error) {
    if (error instanceof LivesnapError && error.code === 'DAMAGED') return null;
    throw error;
  }
}
