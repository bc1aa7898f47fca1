/**
 * The session of a save: batches of pages go in, their places in packs come out. Its page jobs run in the same thread
 * (page-pool.ts).
 *
 * Thread: the thread of the save, which reserves pack numbers in the index and watches the free space.
 *
 * Invariants:
 * - Batches are deduplicated in the order of the calls.
 * - The packer always has the number of one more pack than it has begun.
 */
import { BATCH_PAGES, PAGE_BYTES } from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { packFile, requireFreeSpace } from '../disk/layout.js';
import { takeNumber } from '../index/number-stock.js';
import type { BlockEntry, Place } from '../snapshot/block-list.js';
import { blockOf, type ManifestBlock } from '../snapshot/manifest.js';
import { packList } from '../worker/pack-list.js';
import type { PackerResult } from '../worker/packer.js';
import type { PageBatch } from '../worker/page-batch.js';
import {
  acquireBatch,
  BATCHES_IN_FLIGHT,
  type JobRunner,
  newSession,
  releaseBatch,
  savingRunner,
} from '../worker/page-pool.js';
import type { BlockToStore } from './manifest-builder.js';

/** The free space is checked once for so many pages. */
const SPACE_CHECK_PAGES = 16 * BATCH_PAGES;
export const MIN_FREE_BYTES = 1 << 20;
/** A manifest block is stored as two pages. */
export const BLOCKS_PER_BATCH = BATCH_PAGES / 2;

/** The chunks of a stored manifest block. */
export interface StoredBlock {
  readonly fingerprints: Place;
  readonly places: Place;
  readonly digest: bigint;
}

export class PackingSession {
  readonly #jobs: JobRunner = savingRunner();
  readonly #session = newSession();
  readonly #idleBatches = Array.from({ length: BATCHES_IN_FLIGHT }, acquireBatch);
  /** Pack numbers that the packer has left. */
  #spareNumbers = 0;
  #pagesUntilSpaceCheck = 0;
  /** Chunks written since the last checkpoint. */
  uncommittedChunks = 0;

  constructor(readonly context: StoreContext) {}

  async begin(): Promise<void> {
    const { dir, fingerprintBits, digest, index } = this.context;
    let segments = index.segments();
    for (;;) {
      const { missing } = await this.#jobs.do('packBegin', {
        session: this.#session,
        dir,
        fingerprintBits,
        digest,
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

  /** At most {@link BATCHES_IN_FLIGHT} at a time. */
  acquireBatch(): PageBatch {
    return this.#idleBatches.pop()!;
  }

  /** Call it only when no job uses the batch. */
  releaseBatch(batch: PageBatch): void {
    this.#idleBatches.push(batch);
  }

  /** Sets fingerprints and places of the batch's first `count` pages, and stores the new ones. */
  async store(batch: PageBatch, count: number, { manifest = false } = {}): Promise<void> {
    this.#requireSpace(count);
    const newNumbers = this.#newNumbers();
    const input = { session: this.#session, batch: batch.shared, count, manifest, newNumbers };
    const { spareNumbers, uncommitted } = await this.#jobs.do('packBatch', input);
    this.#spareNumbers = spareNumbers;
    this.uncommittedChunks = uncommitted;
  }

  /**
   * Stores the chunks at the prior places of the batch's first `count` pages once more, and sets their new places. A
   * page that cannot be read, or is not what its prior fingerprint says, keeps its place.
   */
  async storeAgain(batch: PageBatch, count: number): Promise<void> {
    this.#requireSpace(count);
    const input = { session: this.#session, batch: batch.shared, count, newNumbers: this.#newNumbers() };
    this.#spareNumbers = (await this.#jobs.do('packAgain', input)).spareNumbers;
  }

  /** At most {@link BLOCKS_PER_BATCH} blocks. Each becomes two pages: fingerprints, then places. */
  async storeBlocks(blocks: readonly BlockToStore[]): Promise<StoredBlock[]> {
    const batch = this.acquireBatch();
    const words = new Uint32Array(batch.shared);
    const wordsPerPage = PAGE_BYTES / 4;
    blocks.forEach(({ block }, i) => {
      words.set(block.fingerprints, 2 * i * wordsPerPage);
      words.set(block.places, (2 * i + 1) * wordsPerPage);
    });
    batch.priorPlaces.fill(0);
    await this.store(batch, blocks.length * 2, { manifest: true });
    const placeAt = (i: number): Place => ({ pack: batch.places[2 * i]!, chunk: batch.places[2 * i + 1]! });
    const { buffer, byteOffset } = batch.fingerprintWords;
    const digests = new BigUint64Array(buffer, byteOffset, BATCH_PAGES);
    const stored = blocks.map((_, i) => ({
      fingerprints: placeAt(2 * i),
      places: placeAt(2 * i + 1),
      digest: digests[2 * i]!,
    }));
    this.releaseBatch(batch);
    return stored;
  }

  /** Reads back a block that was stored, whose entry this is. Errors: DAMAGED. */
  async readBlock(entry: BlockEntry): Promise<ManifestBlock> {
    const batch = this.acquireBatch();
    const { fingerprints, places } = entry;
    batch.places.set([fingerprints.pack, fingerprints.chunk, places.pack, places.chunk]);
    await this.#jobs.do('packRead', { session: this.#session, batch: batch.shared, count: 2 });
    const pageAt = (i: number): Uint8Array => batch.pages.slice(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
    const block = blockOf(this.context.ops, pageAt(0), pageAt(1), entry);
    this.releaseBatch(batch);
    if (!block)
      throw new DamageError(
        packFile(fingerprints.pack, 0),
        null,
        'a manifest block that this save has stored cannot be read back',
      );
    return block;
  }

  /** As `Save.storeReceived`. */
  async storeReceived(
    pages: Uint8Array,
    ids: Uint8Array,
    digest: Uint8Array,
  ): Promise<{ places: Uint32Array; fingerprints: Uint32Array }> {
    const batch = this.acquireBatch();
    const count = ids.length;
    batch.pages.set(pages.subarray(0, count * PAGE_BYTES));
    this.#requireSpace(count);
    const newNumbers = this.#newNumbers();
    const input = { session: this.#session, batch: batch.shared, ids, digest, newNumbers };
    this.#spareNumbers = (await this.#jobs.do('packReceived', input)).spareNumbers;
    const places = batch.places.slice(0, 2 * count);
    const fingerprints = batch.fingerprintWords.slice(0, 2 * count);
    this.releaseBatch(batch);
    return { places, fingerprints };
  }

  /** As `Save.locate`. */
  async locate(fingerprints: Uint8Array, digests: Uint8Array, id: number): Promise<Uint32Array> {
    const input = { session: this.#session, fingerprints, digests, id };
    return (await this.#jobs.do('packLocate', input)).places;
  }

  #newNumbers(): number[] {
    const numbers = this.#spareNumbers < 1 ? [takeNumber(this.context)] : [];
    this.#spareNumbers += numbers.length;
    return numbers;
  }

  #requireSpace(pages: number): void {
    this.#pagesUntilSpaceCheck -= pages;
    if (this.#pagesUntilSpaceCheck > 0) return;
    requireFreeSpace(this.context.dir, MIN_FREE_BYTES);
    this.#pagesUntilSpaceCheck = SPACE_CHECK_PAGES;
  }

  /** Seals the packs written since the last checkpoint. Call {@link keep} when they are committed. */
  checkpoint(): Promise<PackerResult> {
    return this.#jobs.do('packCheckpoint', { session: this.#session });
  }

  async keep(findable: boolean): Promise<void> {
    await this.#jobs.do('packKeep', { session: this.#session, findable });
    this.uncommittedChunks = 0;
  }

  /** Seals the last packs. */
  seal(): Promise<PackerResult> {
    return this.#jobs.do('packSeal', { session: this.#session });
  }

  /** Ends the session. Unlocks all packs, so that gc may delete those that nothing refers to. */
  async end(): Promise<void> {
    await this.#jobs.do('packEnd', { session: this.#session });
  }

  /** Ends the session and deletes its packs that are not committed. */
  async abort(): Promise<void> {
    await this.#jobs.do('packAbort', { session: this.#session });
  }

  /** Gives the batches back. One that was in flight when a call failed is not reused: a job may use it. */
  releaseBatches(): void {
    for (const batch of this.#idleBatches.splice(0)) releaseBatch(batch);
  }
}
