/**
 * A snapshot opened for reading, and how its pages fill a sink.
 *
 * Invariants: whatever reaches the sink has passed the checksum of its frame and the fingerprint that the snapshot
 * lists for it, and that list is bound to the root digest; anything else is DAMAGED, with file, offset and snapshot
 * named. The snapshot is pinned until `close`: what it needs stays, though it be removed meanwhile.
 */
import { LivesnapError } from '../errors.js';
import {
  BATCH_PAGES,
  type OpenSnapshot,
  PAGE_BYTES,
  type PageRun,
  type PageSink,
  type Progress,
  type Region,
  type SnapshotMetadata,
  type SnapshotSummary,
} from '../page-stream.js';
import { packList, type StoreContext } from './context.js';
import { DamageError } from './disk/damage.js';
import { storeError } from './disk/layout.js';
import { notOfStore } from './disk/store-error.js';
import type { StoreLock } from './disk/store-lock.js';
import type { PackRow } from './index/index-database.js';
import { BLOCK_PAGES } from './pack/pack-format.js';
import type { PackSet } from './pack/pack-reader.js';
import { Pin } from './pins.js';
import { type BlockEntry, pagesOfBlock } from './snapshot/block-list.js';
import { type ManifestBlock, readBlock } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import type { PageBatch } from './worker/page-batch.js';
import {
  giveBatch,
  newSession,
  pageWorker,
  pageWorkerCount,
  startPageWorkers,
  takeBatch,
} from './worker/page-pool.js';

const BATCHES_PER_WORKER = 2;

/** The pages of a batch on its way: `count` of `region`. */
interface Run {
  readonly batch: PageBatch;
  readonly pages: Uint32Array;
  region: number;
  count: number;
}

export class StoredSnapshot implements OpenSnapshot {
  readonly regions: readonly Region[];

  private constructor(
    readonly context: StoreContext,
    readonly lock: StoreLock,
    readonly pin: Pin,
    readonly file: SnapshotFile,
    readonly packRows: readonly PackRow[],
  ) {
    this.regions = file.description.regions.map(({ name, sizeBytes }) => ({ name, sizeBytes }));
  }

  get summary(): SnapshotSummary {
    return this.pin.summary;
  }

  /** `resolve` is called with the lock held. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, NEWER_FORMAT. */
  static async open(context: StoreContext, resolve: () => string): Promise<StoredSnapshot> {
    startPageWorkers(); // while the machine is made
    const lock = await context.lock('shared');
    let pin: Pin | null = null;
    try {
      pin = Pin.take(context, resolve);
      const file = readNamed(context.dir, pin.summary.id);
      return new StoredSnapshot(context, lock, pin, file, context.index.packs());
    } catch (error) {
      pin?.release();
      lock.release();
      throw storeError(context.dir, error);
    }
  }

  get metadata(): SnapshotMetadata {
    const { kind, vm, memoryBytes, diskBytes, machine, host } = this.file.description;
    return {
      kind,
      vm,
      tag: this.summary.tag,
      memoryBytes,
      diskBytes,
      machine,
      host,
      state: this.file.state,
    };
  }

  async fill(sink: PageSink, progress?: Progress): Promise<void> {
    const targets = this.#match(sink);
    const packs = this.context.packSet();
    const sessions = Array.from({ length: pageWorkerCount }, (_, i) => ({
      worker: pageWorker(i),
      session: newSession(),
    }));
    try {
      await Promise.all(
        sessions.map(({ worker, session }) =>
          worker.do('readBegin', {
            session,
            dir: this.context.dir,
            fingerprintBits: this.context.fingerprintBits,
            packs: packList(this.packRows),
          }),
        ),
      );
      let totalBytes = 0;
      for (const { nonZeroPages } of this.file.blocks) totalBytes += nonZeroPages * PAGE_BYTES;
      let doneBytes = 0;
      const runs = this.#runs(packs, targets);
      // Each lane takes the next run when it has delivered its last: no lane waits for another.
      const lane = async ({ worker, session }: (typeof sessions)[number]): Promise<void> => {
        const run: Run = { batch: takeBatch(), pages: new Uint32Array(BATCH_PAGES), region: 0, count: 0 };
        try {
          while (runs.next(run)) {
            const memory = sink.memories?.[run.region];
            const pages = run.pages.subarray(0, run.count);
            const into = memory === undefined ? null : { memory, pages };
            await worker.do('readBatch', { session, batch: run.batch.shared, count: run.count, into });
            if (!into) {
              const bytes = run.batch.pages.subarray(0, run.count * PAGE_BYTES);
              await writeTo(sink, { region: run.region, pages }, bytes);
            }
            doneBytes += run.count * PAGE_BYTES;
            progress?.(doneBytes, totalBytes);
          }
        } finally {
          giveBatch(run.batch);
        }
      };
      const lanes = sessions.flatMap((at) => Array.from({ length: BATCHES_PER_WORKER }, () => lane(at)));
      const settled = await Promise.allSettled(lanes);
      for (const outcome of settled) if (outcome.status === 'rejected') throw outcome.reason;
    } catch (error) {
      throw error instanceof DamageError ? error.in(this.summary.id) : storeError(this.context.dir, error);
    } finally {
      packs.close();
      for (const { worker, session } of sessions) void worker.do('readEnd', { session }).catch(() => {});
    }
  }

  /** For each region of the snapshot the index of the sink's region of that name. */
  #match(sink: PageSink): number[] {
    return this.regions.map(({ name, sizeBytes }) => {
      const index = sink.regions.findIndex((region) => region.name === name);
      if (index < 0 || sink.regions[index]!.sizeBytes < sizeBytes)
        throw new LivesnapError(
          'BAD_STATE',
          `snapshot ${this.summary.id} has ${sizeBytes} bytes of ${name}, and there is no room for them`,
          { hint: 'Restore it into a machine of the same size.' },
        );
      return index;
    });
  }

  /** Cuts the snapshot into runs of at most a batch, in the order of addresses. */
  #runs(packs: PackSet, targets: readonly number[]): { next(run: Run): boolean } {
    const { ops } = this.context;
    const { blocks, description } = this.file;
    const read = (entry: BlockEntry): ManifestBlock =>
      readBlock(ops, packs, entry, pagesOfBlock(description.regions, entry));
    let at = 0;
    let page = 0;
    let block = blocks.length > 0 ? read(blocks.at(0)) : null;
    let failed = false;
    return {
      next(run) {
        run.count = 0;
        if (failed) return false;
        while (block) {
          const entry = blocks.at(at);
          const { places, fingerprints } = block;
          run.region = targets[entry.region]!;
          for (; page < BLOCK_PAGES && run.count < BATCH_PAGES; page++) {
            if (places[2 * page] === 0) continue;
            const to = 2 * run.count;
            run.batch.places[to] = places[2 * page]!;
            run.batch.places[to + 1] = places[2 * page + 1]!;
            run.batch.fingerprintWords[to] = fingerprints[2 * page]!;
            run.batch.fingerprintWords[to + 1] = fingerprints[2 * page + 1]!;
            run.pages[run.count++] = entry.block * BLOCK_PAGES + page;
          }
          if (page < BLOCK_PAGES) break;
          page = 0;
          at++;
          try {
            block = at < blocks.length ? read(blocks.at(at)) : null;
          } catch (error) {
            failed = true;
            throw error;
          }
          if (block && blocks.at(at).region !== entry.region && run.count > 0) break;
        }
        return run.count > 0;
      },
    };
  }

  #closed = false;

  close(): void {
    this.pin.release();
    if (!this.#closed) this.lock.release();
    this.#closed = true;
  }
}

/** What a sink throws is its own: the store is not at fault. */
async function writeTo(sink: PageSink, run: PageRun, bytes: Uint8Array): Promise<void> {
  try {
    await sink.write(run, bytes);
  } catch (error) {
    throw notOfStore(error);
  }
}
