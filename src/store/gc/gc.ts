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
 * - Dead packs are deleted first, because that needs no free space. Rewriting packs does (pack-rewrites.ts).
 */
import { closeSync, lstatSync, readdirSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { requireIdleTime } from '../../native/idle-time.js';
import type { StoreContext } from '../context.js';
import { lockState, openExclusive } from '../disk/file-locks.js';
import {
  at,
  fillReserve,
  fsyncDirectory,
  isTemporary,
  namesIn,
  PACKS,
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
import { parseSegmentName } from '../segment/segment-file.js';
import type { ChunkSet } from '../snapshot/chunk-set.js';
import { syncAllTagFiles } from '../tags.js';
import type { Progress } from '../types.js';
import { Marks } from './marks.js';
import { mayBeNeeded, pathOf } from './pack-generations.js';
import { type LeftPacks, PackRewrites } from './pack-rewrites.js';
import { estimateTidy, tidySegments } from './segment-merge.js';
import { FILES_AT_ONCE, type UnlistedFile, unlinkUnlisted } from './unlisted-files.js';

export interface GcOptions {
  /** Change nothing, and return what would be removed and freed. */
  readonly dryRun: boolean;
  /** Rewrite packs of at most this total size, those with the largest dead share first. */
  readonly maxRepackBytes?: number;
  /** Compress the frames of packs anew with LZ4-HC. With `dryRun` the sizes are estimates. */
  readonly recompress?: boolean;
  /** Rewrite packs only in processor and disk time that nothing else of the host wants. */
  readonly idle?: boolean | undefined;
  /** When it is aborted, the pack that is being rewritten is the last one. gc returns what it has done. */
  readonly endEarly?: AbortSignal | undefined;
  /** Likewise, but gc fails with the signal's reason. What was freed by then stays freed. */
  readonly signal?: AbortSignal | undefined;
}

export interface GcResult {
  readonly removedChunks: number;
  /** Bytes freed in all files except the SQLite database. */
  readonly freedBytes: number;
  /** Null: gc was not asked to recompress. */
  readonly recompressed: Recompression | null;
}

export interface Recompression {
  /** Packs that were rewritten, and their sizes. */
  readonly packs: number;
  readonly beforeBytes: number;
  readonly afterBytes: number;
  /** Packs that were to be rewritten and stay as they are. */
  readonly leftPacks: Readonly<LeftPacks>;
}

/** Errors: STORE_BUSY (another gc), READ_ONLY, DAMAGED (nothing was deleted), SYSTEM (no LZ4-HC, or no idle time). */
export async function collectGarbage(
  context: StoreContext,
  options: GcOptions,
  progress?: Progress,
): Promise<GcResult> {
  const {
    dryRun,
    maxRepackBytes = Number.POSITIVE_INFINITY,
    recompress = false,
    idle = false,
    endEarly,
    signal,
  } = options;
  if (!dryRun) context.requireWrite();
  if (recompress && !context.ops.hasHigh)
    throw new LivesnapError('SYSTEM', 'recompressing needs LZ4-HC, which only the C++ addon has', {
      hint: 'Run npm run build:native, and do not set LIVESNAP_NATIVE_PAGES=0.',
    });
  if (idle) requireIdleTime();
  const locks = [await context.lock('shared', signal)];
  const marks = new Marks(context);
  try {
    if (!dryRun) locks.push(await StoreLock.acquire(context.dir, 'exclusive', PACKS, signal));
    signal?.throwIfAborted();
    marks.refresh();
    const gc = new Collection(context, marks, dryRun);
    gc.removeOrphans();
    gc.removeDeadPacks();
    const rewrites = new PackRewrites(context, marks, {
      ...{ dryRun, maxRepackBytes, recompress, idle },
      isEnding: () => endEarly?.aborted || signal?.aborted || false,
    });
    await rewrites.run(progress);
    gc.add(rewrites);
    if (dryRun) gc.freedBytes += estimateTidy(context, gc.removedChunks);
    else await gc.tidy();
    if (rewrites.left.interrupted > 0) signal?.throwIfAborted();
    const { packs, beforeBytes, afterBytes, left: leftPacks } = rewrites;
    return {
      removedChunks: gc.removedChunks,
      freedBytes: Math.max(0, gc.freedBytes),
      recompressed: recompress ? { packs, beforeBytes, afterBytes, leftPacks } : null,
    };
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
  /** Packs that were deleted or have lost chunks: segments may have entries of these. */
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

  removeDeadPacks(): void {
    const dead = this.context.index.packs().filter((pack) => this.marks.deadChunks(pack) === pack.chunks);
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

  add({ removedChunks, beforeBytes, afterBytes, shrunk }: PackRewrites): void {
    this.removedChunks += removedChunks;
    this.freedBytes += beforeBytes - afterBytes;
    for (const pack of shrunk) this.#changed.add(pack);
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
