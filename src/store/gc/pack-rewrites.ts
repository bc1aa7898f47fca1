/**
 * Rewrites packs: without their dead chunks, and with LZ4-HC when that is asked for (docs/format.md, "gc" and
 * "Recompression").
 *
 * Invariants:
 * - The next generation is written without a lock on the pack, so saves find its chunks meanwhile. It replaces the pack
 *   only under an exclusive lock, and only if no session has begun to need a chunk that it lacks.
 * - The old generation is deleted after the new one is proven (worker/rewrite-pack.ts), synced and committed.
 * - A pack that cannot be rewritten stays as it is, and nothing is left of the attempt.
 */
import { closeSync, unlinkSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { openExclusive } from '../disk/file-locks.js';
import {
  at,
  fsyncDirectory,
  MAX_GENERATION,
  PACKS,
  packFile,
  removeIfThere,
  storeError,
} from '../disk/layout.js';
import { StoreFile } from '../disk/store-file.js';
import type { PackRow } from '../index/index-database.js';
import { Effort } from '../pack/pack-format.js';
import { readFooter, requirePackSize } from '../pack/pack-lists.js';
import type { SealedPack } from '../pack/pack-writer.js';
import type { Progress } from '../types.js';
import { idlePageWorker, type JobRunner, pageWorker } from '../worker/page-pool.js';
import type { Marks } from './marks.js';
import { hasOtherGeneration, pathOf } from './pack-generations.js';

/** A pack is rewritten when more than a twentieth of its chunks are dead. */
const isWorthRewriting = (deadChunks: number, chunks: number): boolean => deadChunks * 20 > chunks;
/** Of a smaller pack, LZ4-HC saves a block or two of the disk, for three syncs. */
const MIN_RECOMPRESSED_BYTES = 64 << 10;

export interface RewriteOptions {
  /** Return what would be rewritten and freed. With `recompress`, sizes are estimates. */
  readonly dryRun: boolean;
  /** Rewrite packs of at most this total size. */
  readonly maxRepackBytes: number;
  /** Also rewrite packs that LZ4-HC has not compressed yet, and compress all rewritten packs with it. */
  readonly recompress: boolean;
  /** Use only processor and disk time that nothing else wants. */
  readonly idle: boolean;
  /** Asked before each pack: whether the last one is done. */
  readonly isEnding: () => boolean;
}

/** Why a pack that was to be rewritten stays as it is. */
export interface LeftPacks {
  /** A session uses it, or another generation of it is kept for repair. */
  held: number;
  damaged: number;
  /** There was no space for the new file. */
  noSpace: number;
  /** It exceeds `maxRepackBytes`. */
  overLimit: number;
  interrupted: number;
}

interface Candidate {
  readonly pack: PackRow;
  readonly deadChunks: number;
}

export class PackRewrites {
  removedChunks = 0;
  /** Packs that were rewritten, and their sizes. */
  packs = 0;
  beforeBytes = 0;
  afterBytes = 0;
  readonly left: LeftPacks = { held: 0, damaged: 0, noSpace: 0, overLimit: 0, interrupted: 0 };
  /** Numbers of packs that have lost dead chunks: segments may have entries of these. */
  readonly shrunk = new Set<number>();

  constructor(
    readonly context: StoreContext,
    readonly marks: Marks,
    readonly options: RewriteOptions,
  ) {}

  async run(progress?: Progress): Promise<void> {
    const worker = this.options.idle ? idlePageWorker() : null;
    try {
      await this.#run(worker ?? pageWorker(0), progress);
    } finally {
      worker?.end();
    }
  }

  async #run(worker: JobRunner, progress?: Progress): Promise<void> {
    const chosen = this.#withinLimit([...this.#withDeadChunks(), ...this.#toRecompress()]);
    const totalBytes = chosen.reduce((total, { sizeBytes }) => total + sizeBytes, 0);
    let doneBytes = 0;
    /** There was no space for a pack of this size. */
    let tooLargeBytes = Number.POSITIVE_INFINITY;
    for (const pack of chosen) {
      if (this.options.isEnding()) this.left.interrupted++;
      else if (pack.sizeBytes >= tooLargeBytes) this.left.noSpace++;
      else if (!(await this.#hasSpaceToRewrite(worker, pack))) tooLargeBytes = pack.sizeBytes;
      doneBytes += pack.sizeBytes;
      progress?.(doneBytes, totalBytes);
    }
  }

  #candidates(): Candidate[] {
    return this.context.index
      .packs()
      .map((pack) => ({ pack, deadChunks: this.marks.deadChunks(pack) }))
      .filter(({ pack, deadChunks }) => deadChunks < pack.chunks);
  }

  /** Those with the largest share of dead chunks first. */
  #withDeadChunks(): PackRow[] {
    return this.#candidates()
      .filter(({ pack, deadChunks }) => isWorthRewriting(deadChunks, pack.chunks))
      .sort((a, b) => b.deadChunks / b.pack.chunks - a.deadChunks / a.pack.chunks)
      .map(({ pack }) => pack);
  }

  /** The other packs that LZ4-HC has not compressed yet, oldest first. */
  #toRecompress(): PackRow[] {
    if (!this.options.recompress) return [];
    return this.#candidates()
      .filter(({ pack, deadChunks }) => !isWorthRewriting(deadChunks, pack.chunks))
      .map(({ pack }) => pack)
      .filter((pack) => pack.sizeBytes >= MIN_RECOMPRESSED_BYTES && this.#mayShrink(pack));
  }

  #mayShrink(pack: PackRow): boolean {
    const { ops, dir } = this.context;
    try {
      const file = new StoreFile(dir, packFile(pack.number, pack.generation));
      try {
        requirePackSize(file, file.file);
        return readFooter(ops, file, pack).effort < Effort.high;
      } finally {
        file.close();
      }
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      this.left.damaged++;
      return false;
    }
  }

  #withinLimit(packs: readonly PackRow[]): PackRow[] {
    let totalBytes = 0;
    return packs.filter(({ sizeBytes }) => {
      const fits = totalBytes + sizeBytes <= this.options.maxRepackBytes;
      if (fits) totalBytes += sizeBytes;
      else this.left.overLimit++;
      return fits;
    });
  }

  /** Rewrites a pack unless that is not possible now. False: there is no space for it. */
  async #hasSpaceToRewrite(worker: JobRunner, pack: PackRow): Promise<boolean> {
    try {
      if (!(await this.#rewrite(worker, pack))) this.left.held++;
      return true;
    } catch (error) {
      const known = storeError(this.context.dir, error);
      if (!(known instanceof LivesnapError)) throw known;
      if (known.code === 'DAMAGED') this.left.damaged++;
      else if (known.code === 'NO_SPACE') this.left.noSpace++;
      else throw known;
      return known.code !== 'NO_SPACE';
    }
  }

  /** False: the pack is in use, or stays for another reason. Errors: NO_SPACE, DAMAGED. */
  async #rewrite(worker: JobRunner, pack: PackRow): Promise<boolean> {
    const { context, marks } = this;
    const { dryRun, recompress } = this.options;
    const { number, generation } = pack;
    if (generation >= MAX_GENERATION) return false;
    const liveChunks = this.#whileUnused(pack, () =>
      hasOtherGeneration(context, pack, dryRun) ? 0 : pack.chunks - marks.deadChunks(pack),
    );
    const live = marks.usage.all.bits(number);
    if (!liveChunks || !live) return false;
    const ask = { dir: context.dir, pack: { number, generation }, live, recompress, dryRun };
    const sealed = await worker.do('rewritePack', ask);
    if (!dryRun && !this.#replace(pack, sealed)) return false;
    this.packs++;
    this.beforeBytes += pack.sizeBytes;
    this.afterBytes += sealed.sizeBytes;
    if (liveChunks < pack.chunks) this.shrunk.add(number);
    this.removedChunks += pack.chunks - liveChunks;
    return true;
  }

  /** Lists the new generation and deletes the pack; false: it is still needed, and the new generation is deleted. */
  #replace(pack: PackRow, sealed: SealedPack): boolean {
    const { context, marks } = this;
    const packs = at(context.dir, PACKS);
    fsyncDirectory(packs);
    const isReplaced = this.#whileUnused(pack, () => {
      // A save has found one of the dead chunks and has committed, or has listed an earlier generation, which has all.
      if (pack.chunks - marks.deadChunks(pack) !== sealed.chunks) return false;
      if (!this.#commit(pack, sealed)) return false;
      unlinkSync(pathOf(context, pack));
      return true;
    });
    if (!isReplaced) removeIfThere(pathOf(context, sealed));
    fsyncDirectory(packs);
    return isReplaced === true;
  }

  #commit(pack: PackRow, sealed: SealedPack): boolean {
    const { context } = this;
    try {
      return context.index.replacePack(sealed, pack.generation);
    } catch (error) {
      const known = storeError(context.dir, error);
      // After any other failure the transaction may be in the log. Then the next gc deletes one of the files.
      if (known instanceof LivesnapError && known.code === 'NO_SPACE') removeIfThere(pathOf(context, sealed));
      throw known;
    }
  }

  /**
   * Runs `work` while no session holds the pack, with the chunks marked that sessions have begun to need. Null: one
   * holds it, or the index lists another generation.
   */
  #whileUnused<T>(pack: PackRow, work: () => T): T | null {
    const fd = openExclusive(pathOf(this.context, pack));
    if (fd === null) return null;
    try {
      this.marks.refresh();
      return this.context.index.generationOf(pack.number) === pack.generation ? work() : null;
    } finally {
      closeSync(fd);
    }
  }
}
