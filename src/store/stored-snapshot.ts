/**
 * A snapshot that is open for reading, and how it fills a page sink.
 *
 * Thread: the one that opened the store. A native fill reads and verifies the pages of memories (native/memory-fill.ts).
 * For other sinks page Workers do, in several lanes at a time.
 *
 * Invariants:
 * - The snapshot is pinned until `close`: its data stays in the store even if it is removed.
 * - A page reaches the sink only if its frame passed its checksum and the page has the fingerprint in the manifest,
 *   which the root digest covers.
 * - Anything else is DAMAGED, with the file, the offset and the snapshot.
 */
import { LivesnapError } from '../errors.js';
import type { MemoryHandle } from '../native/memory.js';
import {
  BATCH_PAGES,
  type OpenRegion,
  type OpenSnapshot,
  PAGE_BYTES,
  type PageRun,
  type PageSink,
  type Progress,
  type Region,
  type SnapshotMetadata,
  type SnapshotSummary,
} from '../page-stream.js';
import type { StoreContext } from './context.js';
import { storeError } from './disk/layout.js';
import { notOfStore } from './disk/store-error.js';
import type { StoreLock } from './disk/store-lock.js';
import type { PackRow } from './index/index-database.js';
import { fillMemories } from './memory-fills.js';
import type { PackSet } from './pack/pack-set.js';
import { Pin } from './pins.js';
import { BLOCK_PAGES, type BlockEntry } from './snapshot/block-list.js';
import { findRegion, type SnapshotDescription } from './snapshot/description.js';
import { type ManifestBlock, readBlock } from './snapshot/manifest.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import { StoredRegion } from './stored-region.js';
import { packList } from './worker/pack-list.js';
import type { PageBatch } from './worker/page-batch.js';
import {
  acquireBatch,
  type JobRunner,
  newSession,
  pageWorker,
  pageWorkerCount,
  releaseBatch,
  startPageWorkers,
} from './worker/page-pool.js';

/** Two, so that a Worker has work while the sink takes the pages of the other batch. */
const LANES_PER_WORKER = 2;

/** A reading session in a page Worker. */
interface ReadSession {
  readonly worker: JobRunner;
  readonly session: number;
}

/** The pages of one batch: `count` pages of a region. */
interface Run {
  readonly batch: PageBatch;
  readonly pages: Uint32Array;
  /** Index into the snapshot's regions. */
  region: number;
  /** Index into the sink's regions. */
  target: number;
  count: number;
}

export class StoredSnapshot implements OpenSnapshot {
  readonly regions: readonly Region[];
  #isClosed = false;

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

  /** Calls `resolve` under the store's lock. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, NEWER_FORMAT. */
  static async open(context: StoreContext, resolve: () => string): Promise<StoredSnapshot> {
    const lock = await context.lock('shared');
    let pin: Pin | null = null;
    try {
      pin = Pin.take(context, resolve);
      if (pin.summary.kind !== 'machine') startPageWorkers(); // they load while the caller opens what it writes to
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
    const { tags } = this.summary;
    return { kind, vm, tags, memoryBytes, diskBytes, machine, host, state: this.file.state };
  }

  async fill(sink: PageSink, progress?: Progress): Promise<void> {
    const targets = this.#targetRegions(sink);
    if (sink.memories !== undefined) {
      await this.#fillMemories(targets, sink.memories, progress);
      return;
    }
    const packs = this.context.packSet();
    const sessions = Array.from({ length: pageWorkerCount }, (_, i) => ({
      worker: pageWorker(i),
      session: newSession(),
    }));
    try {
      await this.#beginReading(sessions);
      let totalBytes = 0;
      for (const { region, nonZeroPages } of this.file.blocks)
        if (targets[region] !== null) totalBytes += nonZeroPages * PAGE_BYTES;
      let doneBytes = 0;
      const countPages = (pages: number): void => {
        doneBytes += pages * PAGE_BYTES;
        progress?.(doneBytes, totalBytes);
      };
      const runs = this.#runs(packs, targets);
      const lanes = sessions.flatMap((session) =>
        Array.from({ length: LANES_PER_WORKER }, () => fillFrom(runs, session, sink, countPages)),
      );
      const settled = await Promise.allSettled(lanes);
      for (const outcome of settled) if (outcome.status === 'rejected') throw outcome.reason;
    } catch (error) {
      throw storeError(this.context.dir, error);
    } finally {
      packs.close();
      for (const { worker, session } of sessions) void worker.do('readEnd', { session }).catch(() => {});
    }
  }

  async #fillMemories(
    targets: readonly (number | null)[],
    memories: readonly MemoryHandle[],
    progress: Progress | undefined,
  ): Promise<void> {
    const { context, file, pin } = this;
    const opened: { readonly region: StoredRegion; readonly memory: MemoryHandle }[] = [];
    try {
      targets.forEach((target, region) => {
        if (target === null) return;
        const memory = memories[target]!;
        opened.push({
          region: new StoredRegion(context, pin.share(), file, region, packList(this.packRows)),
          memory,
        });
      });
      if (opened.length > 0) await fillMemories(context.dir, opened, progress);
    } catch (error) {
      throw storeError(context.dir, error);
    } finally {
      for (const { region } of opened) region.close();
    }
  }

  async #beginReading(sessions: readonly ReadSession[]): Promise<void> {
    const { dir, fingerprintBits } = this.context;
    const packs = packList(this.packRows);
    await Promise.all(
      sessions.map(({ worker, session }) => worker.do('readBegin', { session, dir, fingerprintBits, packs })),
    );
  }

  /** For each region of the snapshot, the index of the sink's region with the same name; null: it is not wanted. */
  #targetRegions(sink: PageSink): (number | null)[] {
    for (const { name } of sink.regions)
      if (!this.regions.some((region) => region.name === name))
        throw new LivesnapError('BAD_STATE', `snapshot ${this.summary.id} has no region ${name}`, {
          hint: 'livesnap show lists the regions of a snapshot.',
        });
    return this.regions.map(({ name, sizeBytes }) => {
      const index = sink.regions.findIndex((region) => region.name === name);
      if (index < 0) return null;
      const roomBytes = sink.regions[index]!.sizeBytes;
      if (roomBytes < sizeBytes)
        throw new LivesnapError(
          'BAD_STATE',
          `snapshot ${this.summary.id} has ${sizeBytes} bytes in region ${name}, but the machine has ${roomBytes}`,
          { hint: 'Restore it into a machine of the same size.' },
        );
      return index;
    });
  }

  /** Cuts the snapshot into runs, in the order of regions and addresses. */
  #runs(packs: PackSet, targets: readonly (number | null)[]): Runs {
    const { ops } = this.context;
    const { blocks, description } = this.file;
    const read = (entry: BlockEntry): ManifestBlock => readBlock(ops, packs, description, entry);
    const nextWanted = (from: number): number => {
      let index = from;
      while (index < blocks.length && targets[blocks.at(index).region] === null)
        index = blocks.lowerBound(blocks.at(index).region + 1, 0);
      return index;
    };
    let at = nextWanted(0);
    let page = 0;
    let block = at < blocks.length ? read(blocks.at(at)) : null;
    let hasFailed = false;
    return {
      description,
      stop() {
        hasFailed = true;
      },
      next(run) {
        run.count = 0;
        if (hasFailed) return false;
        while (block) {
          const entry = blocks.at(at);
          const { places, fingerprints } = block;
          run.region = entry.region;
          run.target = targets[entry.region]!;
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
          at = nextWanted(at + 1);
          block = at < blocks.length ? read(blocks.at(at)) : null;
          if (block && blocks.at(at).region !== entry.region && run.count > 0) break;
        }
        return run.count > 0;
      },
    };
  }

  async openRegion(name: string): Promise<OpenRegion> {
    const { context, file, pin } = this;
    const region = findRegion(file.description, name);
    if (this.#isClosed) throw new LivesnapError('NOT_POSSIBLE_NOW', 'the snapshot has been closed');
    return context.guarded(
      async () => new StoredRegion(context, pin.share(), file, region, packList(this.packRows)),
    );
  }

  close(): void {
    this.pin.release();
    if (!this.#isClosed) this.lock.release();
    this.#isClosed = true;
  }
}

interface Runs {
  /** Of the snapshot that is read. */
  readonly description: SnapshotDescription;
  /** Sets the run's pages, places and fingerprints. False: there are no more. Errors: DAMAGED. */
  next(run: Run): boolean;
  /** From now on there are no more. */
  stop(): void;
}

/** One lane: takes runs until there are no more, or a lane has failed. No lane waits for another. */
async function fillFrom(
  runs: Runs,
  { worker, session }: ReadSession,
  sink: PageSink,
  countPages: (pages: number) => void,
): Promise<void> {
  const { id: snapshot, regions } = runs.description;
  const run: Run = {
    ...{ batch: acquireBatch(), pages: new Uint32Array(BATCH_PAGES) },
    ...{ region: 0, target: 0, count: 0 },
  };
  try {
    while (runs.next(run)) {
      const { batch, target, count } = run;
      const pages = run.pages.subarray(0, count);
      const read = { snapshot, region: regions[run.region]!, pages };
      await worker.do('readBatch', { session, batch: batch.shared, run: read });
      await writeTo(sink, { region: target, pages }, batch.pages.subarray(0, count * PAGE_BYTES));
      countPages(count);
    }
  } catch (error) {
    runs.stop(); // the other lanes end, too
    throw error;
  } finally {
    releaseBatch(run.batch);
  }
}

/** An error of the sink is not an error of the store. */
async function writeTo(sink: PageSink, run: PageRun, bytes: Uint8Array): Promise<void> {
  try {
    await sink.write(run, bytes);
  } catch (error) {
    throw notOfStore(error);
  }
}
