/**
 * gc: deletes unreferenced data (docs/format.md, "gc").
 *
 * It runs beside saves and readers of other processes, and excludes other gcs.
 *
 * Invariants:
 * - A file is deleted only under an exclusive lock on it, taken without waiting, and only if nothing needs it when
 *   that is checked again under the lock.
 * - The index commits before a file is deleted.
 * - If it cannot tell which chunks a snapshot needs, it deletes nothing.
 * - Only files with names that a store gives are deleted.
 * - Dead packs are deleted first, because that needs no free space. Rewriting packs does.
 */
import { closeSync, existsSync, lstatSync, readdirSync, unlinkSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { lockState, openExclusive } from '../disk/file-locks.js';
import {
  at,
  fillReserve,
  fsyncDirectory,
  generationsOnDisk,
  isTemporary,
  MAX_GENERATION,
  namesIn,
  PACKS,
  packFile,
  parsePackName,
  removeIfThere,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
} from '../disk/layout.js';
import { StoreLock } from '../disk/store-lock.js';
import type { PackRow } from '../index/index-database.js';
import { removeReplaced } from '../index/index-replacement.js';
import { FrameFlag, type PackName } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import { parseSegmentName } from '../segment/segment-file.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { syncAllTagFiles } from '../tags.js';
import type { Progress } from '../types.js';
import { pageWorker } from '../worker/page-pool.js';
import { Marks } from './marks.js';
import { estimateTidy, tidySegments } from './segment-merge.js';
import { FILES_AT_ONCE, type UnlistedFile, unlinkUnlisted } from './unlisted-files.js';

/** A pack is rewritten when more than a twentieth of its chunks are dead. */
const isWorthRewriting = (deadChunks: number, chunks: number): boolean => deadChunks * 20 > chunks;

export interface GcOptions {
  /** Change nothing, and return what would be removed and freed. */
  readonly dryRun: boolean;
  /** Rewrite packs of at most this total size, those with the largest dead share first. */
  readonly maxRepackBytes?: number;
}

export interface GcResult {
  readonly removedChunks: number;
  /** Bytes freed in all files except the SQLite database. */
  readonly freedBytes: number;
}

/** A pack and its dead chunks. If all are dead, the pack is deleted whole. */
interface Candidate {
  readonly pack: PackRow;
  readonly deadChunks: number;
}

/** Errors: STORE_BUSY (another gc), READ_ONLY, DAMAGED (nothing was deleted). */
export async function collectGarbage(
  context: StoreContext,
  { dryRun, maxRepackBytes = Number.POSITIVE_INFINITY }: GcOptions,
  progress?: Progress,
): Promise<GcResult> {
  if (!dryRun) context.requireWrite();
  const locks = [await context.lock('shared')];
  const marks = new Marks(context);
  try {
    if (!dryRun) locks.push(await StoreLock.acquire(context.dir, 'exclusive', PACKS));
    marks.refresh();
    const gc = new Collection(context, marks, dryRun);
    gc.removeOrphans();
    gc.removeDeadPacks();
    await gc.rewritePacks(maxRepackBytes, progress);
    if (dryRun) gc.freedBytes += estimateTidy(context, gc.removedChunks);
    else await gc.tidy();
    return { removedChunks: gc.removedChunks, freedBytes: Math.max(0, gc.freedBytes) };
  } catch (error) {
    throw storeError(context.dir, error);
  } finally {
    marks.close();
    for (const lock of locks) lock.release();
  }
}

class Collection {
  removedChunks = 0;
  freedBytes = 0;
  /** Packs that were deleted or rewritten: segments may have entries of their deleted chunks. */
  readonly #changed = new Set<number>();

  constructor(
    readonly context: StoreContext,
    readonly marks: Marks,
    readonly dryRun: boolean,
  ) {}

  get #live(): ChunkSet {
    return this.marks.usage.all;
  }

  removeOrphans(): void {
    const { context, dryRun } = this;
    if (dryRun) {
      this.freedBytes += orphanBytes(context);
      return;
    }
    // The snapshots go first, so that a power cut does not leave one without its packs, which a repair would list.
    for (const folder of FOLDERS) {
      for (const sizeBytes of unlinkUnlisted(context, orphans(context, folder)))
        this.freedBytes += sizeBytes ?? 0;
      fsyncDirectory(at(context.dir, folder));
    }
    removeReplaced(context.dir);
  }

  #candidates(): Candidate[] {
    const packs = this.context.index.packs();
    return packs.map((pack) => ({ pack, deadChunks: pack.chunks - this.#live.count(pack.number) }));
  }

  removeDeadPacks(): void {
    const dead = this.#candidates()
      .filter(({ pack, deadChunks }) => deadChunks === pack.chunks)
      .map(({ pack }) => pack);
    for (let i = 0; i < dead.length; i += FILES_AT_ONCE) this.#removeDead(dead.slice(i, i + FILES_AT_ONCE));
    if (dead.length > 0 && !this.dryRun) fsyncDirectory(at(this.context.dir, PACKS));
  }

  #removeDead(packs: readonly PackRow[]): void {
    const { context, dryRun } = this;
    const count = (pack: PackRow): void => {
      this.removedChunks += pack.chunks;
      this.freedBytes += pack.sizeBytes;
      this.#changed.add(pack.number);
    };
    if (dryRun) {
      for (const pack of packs) if (lockState(pathOf(context, pack)) === 'free') count(pack);
      return;
    }
    const held: { pack: PackRow; fd: number | null }[] = [];
    try {
      for (const pack of packs) {
        const fd = openExclusive(pathOf(context, pack));
        if (fd !== null || lockState(pathOf(context, pack)) === 'gone') held.push({ pack, fd });
      }
      this.marks.refresh();
      const dead = held.map(({ pack }) => pack).filter(({ number }) => this.#live.count(number) === 0);
      // A save may have listed an earlier generation just now: then the pack is not removed.
      for (const pack of context.index.removePacks(dead)) {
        removeIfThere(pathOf(context, pack));
        count(pack);
      }
    } finally {
      for (const { fd } of held) if (fd !== null) closeSync(fd);
    }
  }

  async rewritePacks(maxRepackBytes: number, progress?: Progress): Promise<void> {
    const worthIt = this.#candidates()
      .filter(({ pack, deadChunks }) => deadChunks < pack.chunks && isWorthRewriting(deadChunks, pack.chunks))
      .sort((a, b) => b.deadChunks / b.pack.chunks - a.deadChunks / a.pack.chunks);
    const chosen: Candidate[] = [];
    let totalBytes = 0;
    for (const candidate of worthIt) {
      if (totalBytes + candidate.pack.sizeBytes > maxRepackBytes) continue;
      totalBytes += candidate.pack.sizeBytes;
      chosen.push(candidate);
    }
    let doneBytes = 0;
    for (const { pack } of chosen) {
      try {
        await this.#rewrite(pack);
      } catch (error) {
        const known = storeError(this.context.dir, error);
        // There is no space for the new pack, or the old one cannot be read. The old pack stays.
        if (!(known instanceof LivesnapError && (known.code === 'NO_SPACE' || known.code === 'DAMAGED')))
          throw known;
      }
      doneBytes += pack.sizeBytes;
      progress?.(doneBytes, totalBytes);
    }
  }

  async #rewrite(pack: PackRow): Promise<void> {
    const { context, dryRun } = this;
    const { number, generation } = pack;
    if (generation >= MAX_GENERATION) return;
    const fd = openExclusive(pathOf(context, pack));
    if (fd === null) return;
    try {
      this.marks.refresh();
      if (context.index.generationOf(number) !== generation || this.#hasOtherGeneration(pack)) return;
      const live = this.#live.bits(number);
      const deadChunks = pack.chunks - this.#live.count(number);
      if (!live || deadChunks === 0) return;
      const ask = { dir: context.dir, pack: { number, generation }, live, dryRun };
      const sealed = await pageWorker(0).do('rewritePack', ask);
      if (!dryRun) {
        fsyncDirectory(at(context.dir, PACKS));
        if (!context.index.replacePack(sealed, generation)) {
          removeIfThere(pathOf(context, sealed)); // a save has listed an earlier generation, which has all its chunks
          return;
        }
        unlinkSync(pathOf(context, pack));
        fsyncDirectory(at(context.dir, PACKS));
      }
      this.#changed.add(number);
      this.removedChunks += deadChunks;
      this.freedBytes += pack.sizeBytes - sealed.sizeBytes;
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Whether another generation of the pack stays on disk, which a save may list later. Each generation must be a
   * subset of all earlier ones, so the listed one is rewritten only when it is the only one.
   */
  #hasOtherGeneration({ number, generation }: PackRow): boolean {
    const { context, dryRun } = this;
    return generationsOnDisk(context.dir, number).some((other) => {
      if (other === generation) return false;
      const stays = (): boolean => lockState(at(context.dir, packFile(number, other))) !== 'free';
      return !dryRun || mayBeNeeded(context, { number, generation: other }) || stays();
    });
  }

  /** Drops segment entries of deleted chunks, merges segments, and completes work that a crash interrupted. */
  async tidy(): Promise<void> {
    const { context } = this;
    const { index, dir } = context;
    const gone = [...this.#changed].map((pack) => ({ pack, live: this.#live.bits(pack) ?? null }));
    try {
      this.freedBytes += await tidySegments(context, gone);
      syncAllTagFiles(context);
      index.checkpoint();
      index.vacuum();
      index.checkpoint();
    } catch (error) {
      const known = storeError(dir, error);
      // The next gc tidies. The data is deleted already.
      if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) throw known;
    }
    fillReserve(dir);
  }
}

const pathOf = ({ dir }: StoreContext, { number, generation }: PackRow): string =>
  at(dir, packFile(number, generation));

/** The folders of a store that may hold orphans. */
const FOLDERS = [SNAPSHOTS, PACKS, SEGMENTS] as const;
type Folder = (typeof FOLDERS)[number];

/**
 * Files of a folder with names that a store gives, but not in the index. They belong to saves that did not commit
 * (yet), or to snapshots whose rm was interrupted or left the file to its readers.
 */
function orphans(context: StoreContext, folder: Folder): UnlistedFile[] {
  const { dir } = context;
  const found: UnlistedFile[] = [];
  for (const name of namesIn(dir, folder)) {
    const isListed = listingOf(context, folder, name);
    if (isListed && !isListed()) found.push({ path: at(dir, `${folder}/${name}`), isListed });
  }
  return found;
}

/** Asks whether the index lists the file now; null if a store gives no file of this folder such a name. */
function listingOf(context: StoreContext, folder: Folder, name: string): (() => boolean) | null {
  const { index } = context;
  switch (folder) {
    case SNAPSHOTS:
      return SNAPSHOT_ID.test(name) || isTemporary(name) ? () => index.has(name) : null;
    case PACKS: {
      if (isTemporary(name)) return () => false;
      const pack = parsePackName(name);
      return pack && (() => mayBeNeeded(context, pack));
    }
    case SEGMENTS: {
      const number = parseSegmentName(name);
      return number === null ? null : () => index.hasSegment(number);
    }
  }
}

/**
 * Whether the index lists the pack, or the next repair may need it:
 * - any generation, if the listed one is missing: an interrupted repair may have moved that to the quarantine;
 * - an older generation, if the listed one has lost chunks: it came back from a backup.
 */
function mayBeNeeded(context: StoreContext, { number, generation }: PackName): boolean {
  const listed = context.index.generationOf(number);
  if (listed === undefined || listed === generation) return listed === generation;
  if (!existsSync(at(context.dir, packFile(number, listed)))) return true;
  if (listed < generation) return false;
  try {
    const reader = new PackReader(context.ops, context.dir, { number, generation: listed });
    try {
      return [...reader.frames].some(({ flags }) => (flags & FrameFlag.lost) !== 0);
    } finally {
      reader.close();
    }
  } catch (error) {
    if (error instanceof DamageError) return true; // repair may need both
    throw error;
  }
}

/** The size of all orphans that no session holds. */
export function orphanBytes(context: StoreContext): number {
  return FOLDERS.flatMap((folder) => orphans(context, folder))
    .map(({ path }) => path)
    .filter((path) => lockState(path) === 'free')
    .reduce((total, path) => total + sizeOf(path), 0);
}

const sizeOf = (path: string): number => lstatSync(path, { throwIfNoEntry: false })?.size ?? 0;

/** The size of a directory and everything in it, as `du -b` counts it. `wanted` selects names at the top. */
export function directoryBytes(dir: string, wanted: (name: string) => boolean = () => true): number {
  let total = sizeOf(dir);
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (!wanted(entry.name)) continue;
    const path = at(dir, entry.name);
    total += entry.isDirectory() ? directoryBytes(path) : sizeOf(path);
  }
  return total;
}
