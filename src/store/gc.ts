/**
 * gc: takes away what no snapshot needs (docs/format.md, "gc").
 *
 * Invariants: runs with the store's lock held exclusively; the index commits before a file goes; if it cannot tell
 * what a snapshot needs it takes nothing; only names that a store makes are touched. On a full disk it goes from what
 * needs no room (whole dead packs) to what needs some (rewriting).
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { StoreContext } from './context.js';
import { DamageError } from './damage.js';
import { mergeSegments, type Segment } from './fingerprints.js';
import type { PackRow } from './index-database.js';
import {
  at,
  fillReserve,
  fsyncDirectory,
  isTemporary,
  PACKS,
  packFile,
  parsePackName,
  removeIfThere,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
  TAG_LABEL,
  TAGS,
} from './layout.js';
import { pageWorker } from './page-pool.js';
import { readNamed } from './restore.js';
import { writeTagFile } from './save.js';
import type { Progress } from './types.js';
import { bytesOfChunks, Usage } from './usage.js';

/** A pack is rewritten when more than a twentieth of its chunks are dead. */
const isWorthRewriting = (deadChunks: number, chunks: number): boolean => deadChunks * 20 > chunks;
const MAX_SEGMENT_BYTES = 64 << 20;

export interface GcResult {
  readonly removedChunks: number;
  readonly freedBytes: number;
}

interface Plan {
  readonly orphans: readonly string[];
  readonly deadPacks: readonly PackRow[];
  readonly rewrites: readonly { pack: PackRow; deadChunks: number; live: Uint8Array }[];
}

/** Errors: STORE_BUSY, READ_ONLY, DAMAGED (then nothing was removed). */
export async function collectGarbage(
  context: StoreContext,
  { dryRun }: { dryRun: boolean },
  progress?: Progress,
): Promise<GcResult> {
  if (!dryRun) context.requireWrite();
  const lock = await context.lock('exclusive');
  try {
    const usage = markAll(context);
    const plan = makePlan(context, usage);
    if (dryRun) return foretell(context, plan, usage);
    const before = directoryBytes(context.dir);
    let removedChunks = removeWhole(context, plan);
    removedChunks += await rewrite(context, plan, progress);
    tidyIndex(context, usage, removedChunks);
    return { removedChunks, freedBytes: Math.max(0, before - directoryBytes(context.dir)) };
  } catch (error) {
    throw storeError(context.dir, error);
  } finally {
    lock.release();
  }
}

/** What all snapshots of the index need. */
export function markAll(context: StoreContext, except?: string): Usage {
  const packs = context.packSet(context.index.packs());
  try {
    const usage = new Usage(packs);
    for (const { id } of context.index.summaries()) {
      if (id === except) continue;
      try {
        usage.addSnapshot(readNamed(context.dir, id));
      } catch (error) {
        throw error instanceof DamageError ? error.in(id) : error;
      }
    }
    return usage;
  } finally {
    packs.close();
  }
}

function makePlan(context: StoreContext, usage: Usage): Plan {
  const deadPacks: PackRow[] = [];
  const rewrites: { pack: PackRow; deadChunks: number; live: Uint8Array }[] = [];
  for (const pack of context.index.packs()) {
    const live = usage.all.bits(pack.number);
    if (!live) {
      deadPacks.push(pack);
      continue;
    }
    const deadChunks = pack.chunks - usage.all.count(pack.number);
    if (isWorthRewriting(deadChunks, pack.chunks)) rewrites.push({ pack, deadChunks, live });
  }
  return { orphans: findOrphans(context), deadPacks, rewrites };
}

/** Files with a store's names that the index does not know: of saves that never committed, of an rm cut short. */
export function findOrphans(context: StoreContext): string[] {
  const { index, dir } = context;
  const packs = new Set(index.packs().map(({ number, generation }) => packFile(number, generation)));
  const snapshots = new Set(index.summaries().map(({ id }) => id));
  const tags = new Set(index.tags().map(({ label }) => label));
  const list = (folder: string, isOrphan: (name: string) => boolean): string[] =>
    readdirSync(at(dir, folder))
      .filter((name) => isTemporary(name) || isOrphan(name))
      .map((name) => `${folder}/${name}`);
  return [
    ...list(PACKS, (name) => parsePackName(name) !== null && !packs.has(`${PACKS}/${name}`)),
    ...list(SNAPSHOTS, (name) => SNAPSHOT_ID.test(name) && !snapshots.has(name)),
    ...list(TAGS, (name) => TAG_LABEL.test(name) && !tags.has(name)),
  ];
}

function foretell(context: StoreContext, { orphans, deadPacks, rewrites }: Plan, usage: Usage): GcResult {
  let freedBytes = orphans.reduce((total, file) => total + sizeOf(at(context.dir, file)), 0);
  let removedChunks = 0;
  for (const pack of deadPacks) {
    freedBytes += pack.sizeBytes;
    removedChunks += pack.chunks;
  }
  const packs = context.packSet(rewrites.map(({ pack }) => pack));
  try {
    for (const { pack, deadChunks } of rewrites) {
      freedBytes += bytesOfChunks(packs.pack(pack.number), (chunk) => !usage.all.has(pack.number, chunk));
      removedChunks += deadChunks;
    }
  } finally {
    packs.close();
  }
  return { removedChunks, freedBytes };
}

function removeWhole(context: StoreContext, { orphans, deadPacks }: Plan): number {
  for (const file of orphans) removeIfThere(at(context.dir, file));
  context.index.removePacks(deadPacks.map(({ number }) => number));
  for (const { number, generation } of deadPacks)
    removeIfThere(at(context.dir, packFile(number, generation)));
  for (const folder of [PACKS, SNAPSHOTS, TAGS]) fsyncDirectory(at(context.dir, folder));
  return deadPacks.reduce((total, { chunks }) => total + chunks, 0);
}

async function rewrite(context: StoreContext, { rewrites }: Plan, progress?: Progress): Promise<number> {
  const totalBytes = rewrites.reduce((total, { pack }) => total + pack.sizeBytes, 0);
  let doneBytes = 0;
  let removedChunks = 0;
  for (const { pack, deadChunks, live } of rewrites) {
    const { number, generation } = pack;
    try {
      const sealed = await pageWorker(0).do('rewritePack', {
        dir: context.dir,
        pack: { number, generation },
        live,
      });
      fsyncDirectory(at(context.dir, PACKS));
      context.index.replacePack(sealed);
      removeIfThere(at(context.dir, packFile(number, generation)));
      fsyncDirectory(at(context.dir, PACKS));
      removedChunks += deadChunks;
    } catch (error) {
      const known = storeError(context.dir, error);
      // No room to rewrite in, or a pack that cannot be read: it stays as it is.
      if (!(known instanceof LivesnapError && (known.code === 'NO_SPACE' || known.code === 'DAMAGED')))
        throw known;
    }
    doneBytes += pack.sizeBytes;
    progress?.(doneBytes, totalBytes);
  }
  return removedChunks;
}

/** Drops dead entries, merges segments, gives free pages back, and makes good what a crash left undone. */
function tidyIndex(context: StoreContext, usage: Usage, removedChunks: number): void {
  const { index, dir } = context;
  try {
    index.freeingSpace(() => {
      for (const { ids, segments } of segmentGroups(context))
        if (removedChunks > 0 || ids.length > 1)
          index.replaceSegments(ids, [mergeSegments(segments, (pack, chunk) => usage.all.has(pack, chunk))]);
    });
    for (const { label, snapshot } of index.tags())
      if (readTag(dir, label) !== snapshot) writeTagFile(dir, label, snapshot);
    index.checkpoint();
    index.vacuum();
    index.checkpoint();
  } catch (error) {
    const known = storeError(dir, error);
    // Room for tidying can be had at the next gc; what counted is done.
    if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) throw known;
  }
  fillReserve(dir);
}

/** Segments in runs that may be merged into one. */
function segmentGroups(context: StoreContext): { ids: number[]; segments: Segment[] }[] {
  context.segments();
  const groups: { ids: number[]; segments: Segment[]; bytes: number }[] = [];
  for (const { id, sizeBytes } of context.index.segmentSizes()) {
    const segment = context.segment(id);
    if (!segment) continue;
    let group = groups.at(-1);
    if (!group || group.bytes + sizeBytes > MAX_SEGMENT_BYTES) {
      group = { ids: [], segments: [], bytes: 0 };
      groups.push(group);
    }
    group.ids.push(id);
    group.segments.push(segment);
    group.bytes += sizeBytes;
  }
  return groups;
}

function readTag(dir: string, label: string): string | null {
  try {
    return readFileSync(at(dir, `${TAGS}/${label}`), 'utf8').trim();
  } catch {
    return null;
  }
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

/** Bytes of a directory and everything in it, as `du -b` counts; only names for which `wanted` holds. */
export function directoryBytes(dir: string, wanted: (name: string) => boolean = () => true): number {
  let total = sizeOf(dir);
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (!wanted(entry.name)) continue;
    const path = at(dir, entry.name);
    total += entry.isDirectory() ? directoryBytes(path) : sizeOf(path);
  }
  return total;
}
