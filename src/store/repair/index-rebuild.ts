/**
 * Rebuilds the index and the segments from the other files (docs/format.md, "Repair").
 *
 * Invariants:
 * - The new index is complete and fsynced under another name before it replaces the old one.
 * - Its next number is above that of every file in packs/, segments/ and quarantine/ and of every place.
 */

import { LivesnapError } from '../../errors.js';
import { formatCount } from '../../format.js';
import { at, HIGHEST_NUMBER, namesIn, RESERVE, removeIfThere, SEGMENTS } from '../disk/layout.js';
import { rebuildSegments } from '../gc/segment-merge.js';
import { Index, type PackRow, snapshotRow } from '../index/index-database.js';
import { NEW_DATABASE, removeUnfinished, replaceIndex } from '../index/index-replacement.js';
import { hasSegmentHeader, parseSegmentName, segmentFile } from '../segment/segment-file.js';
import type { SnapshotFile } from '../snapshot/snapshot-file.js';
import type { Tag } from '../types.js';
import { highestQuarantinedPack, MAX_NUMBER_FROM_NAME } from './quarantine.js';
import type { RepairReport } from './report.js';

/** The IDs in the present index; null when it cannot be read. Errors: NEWER_FORMAT, STORE_BUSY. */
export function idsInIndex(report: RepairReport): Set<string> | null {
  try {
    const index = Index.open(report.dir, false);
    try {
      return new Set(index.summaries().map(({ id }) => id));
    } finally {
      index.close();
    }
  } catch (error) {
    if (error instanceof LivesnapError && (error.code === 'NEWER_FORMAT' || error.code === 'STORE_BUSY'))
      throw error;
    report.add('The index could not be read.');
    return null;
  }
}

/**
 * Returns the numbers of the segments that the new index lists. `highestPack`: the highest number of a pack that is on
 * disk or that a snapshot refers to. Errors: NO_SPACE, SYSTEM.
 */
export async function rebuildIndex(
  report: RepairReport,
  files: readonly SnapshotFile[],
  tags: readonly Tag[],
  listed: ReadonlyMap<number, PackRow>,
  highestPack: number,
): Promise<ReadonlySet<number>> {
  const { dir } = report;
  const nextNumber = Math.max(highestPack, highestSegment(report), highestQuarantinedPack(dir)) + 1;
  const packs = [...listed.values()].sort((a, b) => a.number - b.number);
  removeIfThere(at(dir, RESERVE)); // On a full disk the index needs this room.
  let segments: Set<number>;
  try {
    const index = Index.create(dir, NEW_DATABASE);
    try {
      index.rebuild({ snapshots: files.map(snapshotRow), tags, packs, nextNumber });
      await rebuildSegments({ dir, index }, []);
      segments = new Set(index.segments().map(({ number }) => number));
      index.database.pragma('wal_checkpoint(TRUNCATE)');
    } catch (error) {
      removeNewSegments(dir, nextNumber);
      throw error;
    } finally {
      index.close();
    }
    replaceIndex(dir);
  } catch (error) {
    removeUnfinished(dir);
    throw error;
  }
  const counts = [
    formatCount(files.length, 'snapshot'),
    formatCount(tags.length, 'tag'),
    formatCount(packs.length, 'pack'),
  ];
  report.add(`The index was rebuilt: ${counts.join(', ')}.`);
  return segments;
}

/** Removes the segments of the old index. Call when the new index is in place. */
export function removeOtherSegments(dir: string, listed: ReadonlySet<number>): void {
  removeSegments(dir, (number) => !listed.has(number));
}

/** Removes the segments of an index that failed. The next attempt would make them again, under other numbers. */
function removeNewSegments(dir: string, first: number): void {
  try {
    removeSegments(dir, (number) => number >= first);
  } catch {
    // gc or the next repair removes them. The first error is the one to report.
  }
}

function removeSegments(dir: string, isUnwanted: (number: number) => boolean): void {
  for (const name of namesIn(dir, SEGMENTS)) {
    const number = parseSegmentName(name);
    if (number !== null && isUnwanted(number)) removeIfThere(at(dir, segmentFile(number)));
  }
}

/** The highest number of a segment's file. All of these files are orphans once the new index is in place. */
function highestSegment(report: RepairReport): number {
  const { dir } = report;
  let highest = 0;
  for (const name of namesIn(dir, SEGMENTS)) {
    const number = parseSegmentName(name);
    if (number === null) continue;
    if (number <= MAX_NUMBER_FROM_NAME || (number <= HIGHEST_NUMBER && hasSegmentHeader(dir, number)))
      highest = Math.max(highest, number);
    else report.quarantine(segmentFile(number), 'its contents do not show that it is this segment');
  }
  return highest;
}
