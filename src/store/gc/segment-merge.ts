/**
 * Merges and rebuilds segments, so that the index lists a few files instead of many.
 *
 * Thread: the one that opened the store commits; a page Worker reads and writes the files, if they are large. Other
 * processes may merge at the same time. Merging is never part of a save's commit.
 *
 * Invariant: a segment is listed before the segments that it replaces are deleted, so every chunk can be found at any
 * time.
 */
import { DamageError } from '../disk/damage.js';
import { MAX_OPEN_FILES } from '../disk/descriptors.js';
import { unlinkUnlessLocked } from '../disk/file-locks.js';
import { at, fsyncDirectory, removeIfThere, SEGMENTS } from '../disk/layout.js';
import type { Index } from '../index/index-database.js';
import { takeNumber } from '../index/number-stock.js';
import {
  MAX_SEGMENT_ENTRIES,
  openSegment,
  type SegmentRow,
  segmentBytes,
  segmentFile,
} from '../segment/segment-file.js';
import { packList } from '../worker/pack-list.js';
import type { GoneChunks } from '../worker/page-jobs.js';
import { type JobRunner, pageWorker, savingRunner } from '../worker/page-pool.js';

/** The parts of a store that segments need. */
interface Target {
  readonly dir: string;
  readonly index: Index;
}

/** 256 MiB: the largest merge after a save, so that it takes seconds. gc merges larger ones. */
const MAX_MERGED_ENTRIES = 16 << 20;

/** The Worker that merges much. */
const MERGING = 1;
/** 1 MiB: so few entries are merged in milliseconds, which starts no Worker. */
const FEW_ENTRIES = 1 << 16;

/** Files that this process has found damaged. Without this list each save would read them again to find out. */
const damagedFiles = new Set<string>();

/**
 * Merges the newest segments. It takes an older one as long as that has at most twice the entries taken so far, so
 * that a store has few segments and each entry is rewritten a logarithmic number of times. A damaged segment is left
 * to gc, and the newer ones are merged the next time. Errors: DAMAGED.
 */
export async function mergeNewest(target: Target): Promise<void> {
  const run: SegmentRow[] = [];
  let total = 0;
  for (const row of target.index.segments().reverse()) {
    if (damagedFiles.has(at(target.dir, segmentFile(row.number)))) break;
    if (run.length > 0 && row.entries > 2 * total) break;
    if (total + row.entries > MAX_MERGED_ENTRIES || run.length === MAX_OPEN_FILES) break;
    run.push(row);
    total += row.entries;
  }
  if (run.length <= 1) return;
  const damage = await merge(target, [run], []);
  if (!damage) return;
  damagedFiles.add(at(target.dir, damage.file));
  throw damage;
}

/** Groups segments into runs. gc merges each run into one segment. */
function runsOf(rows: readonly SegmentRow[]): SegmentRow[][] {
  const runs: SegmentRow[][] = [];
  let total = 0;
  for (const row of rows) {
    const isFull = total + row.entries > MAX_SEGMENT_ENTRIES || runs.at(-1)?.length === MAX_OPEN_FILES;
    if (runs.length === 0 || isFull) {
      runs.push([]);
      total = 0;
    }
    runs.at(-1)!.push(row);
    total += row.entries;
  }
  return runs;
}

function isReadable(dir: string, row: SegmentRow): boolean {
  try {
    openSegment(dir, row).close();
    return true;
  } catch (error) {
    if (error instanceof DamageError) return false;
    throw error;
  }
}

/**
 * Merges all segments, drops entries of deleted chunks, and rebuilds segments that cannot be read. Returns by how many
 * bytes the files have shrunk.
 */
export async function tidySegments(target: Target, gone: readonly GoneChunks[]): Promise<number> {
  const rows = target.index.segments();
  const before = totalBytes(rows);
  if (rows.every((row) => isReadable(target.dir, row))) {
    const runs = runsOf(rows);
    const damage = gone.length > 0 || rows.length > runs.length ? await merge(target, runs, gone) : null;
    // They differ when a segment was lost, or when an earlier gc was interrupted after it had removed packs.
    const { listed, chunks } = target.index.coverage();
    if (damage || listed !== chunks) await rebuildSegments(target, target.index.segments());
  } else await rebuildSegments(target, rows);
  return before - totalBytes(target.index.segments());
}

/**
 * Estimates the result of {@link tidySegments} when `dropped` entries are dropped. The estimate is exact where one file
 * has room for all entries, up to 2^24 chunks.
 */
export function estimateTidy(target: Target, dropped: number): number {
  const rows = target.index.segments();
  const runs = runsOf(rows);
  const { listed, chunks } = target.index.coverage();
  if (dropped === 0 && rows.length === runs.length && listed === chunks) return 0;
  const left = chunks - dropped;
  const files = Math.min(runs.length, left);
  return totalBytes(rows) - (files * segmentBytes(0) + segmentBytes(left) - segmentBytes(0));
}

const totalBytes = (rows: readonly SegmentRow[]): number =>
  rows.reduce((total, { entries }) => total + segmentBytes(entries), 0);

/** Makes one segment of each run. Returns the damage of a segment that is still listed, or null. */
async function merge(
  target: Target,
  runs: readonly (readonly SegmentRow[])[],
  gone: readonly GoneChunks[],
): Promise<DamageError | null> {
  let damage: DamageError | null = null;
  for (const from of runs) {
    const into = takeNumber(target);
    const ask = { dir: target.dir, from, into, gone };
    const entries = from.reduce((total, row) => total + row.entries, 0);
    const worker = entries <= FEW_ENTRIES ? savingRunner() : pageWorker(MERGING);
    try {
      await replace(target, from, into, worker, () => worker.do('mergeSegments', ask));
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      // If one is not listed, another process has merged it just now.
      if (from.every(({ number }) => target.index.hasSegment(number))) damage = error;
    }
  }
  return damage;
}

/** Makes segments of all chunks that the packs list, and replaces the given ones by them. */
export async function rebuildSegments(target: Target, rows: readonly SegmentRow[]): Promise<void> {
  const packs = target.index.packs();
  let replaced = rows;
  for (let from = 0; from < packs.length; ) {
    let to = from;
    for (
      let chunks = 0;
      to < packs.length && (to === from || chunks + packs[to]!.chunks <= MAX_MERGED_ENTRIES);
      to++
    )
      chunks += packs[to]!.chunks;
    const [into] = target.index.reserveNumbers(1) as [number];
    const ask = { dir: target.dir, packs: packList(packs.slice(from, to)), into };
    // The first replaces all given ones. A crash after it loses entries, which costs only deduplication.
    const worker = pageWorker(MERGING);
    await replace(target, replaced, into, worker, () => worker.do('buildSegment', ask));
    replaced = [];
    from = to;
  }
}

async function replace(
  target: Target,
  from: readonly SegmentRow[],
  into: number,
  worker: JobRunner,
  write: () => Promise<SegmentRow | null>,
): Promise<void> {
  const { dir, index } = target;
  const written = await write();
  try {
    fsyncDirectory(at(dir, SEGMENTS));
    const numbers = from.map(({ number }) => number);
    if (!index.replaceSegments(numbers, written ? [written] : [])) removeIfThere(at(dir, segmentFile(into)));
    else for (const number of numbers) unlinkUnlessLocked(at(dir, segmentFile(number)));
  } finally {
    await worker.do('segmentEnd', { into });
  }
}
