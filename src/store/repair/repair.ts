/**
 * repair: rebuilds the index from packs/, snapshots/ and tags/, sets damaged files aside and heals what it can
 * (docs/format.md, "Repair").
 *
 * Invariants:
 * - The new index is complete before it replaces the old one, and it lists the replacement of a damaged pack before the
 *   damaged files are moved to quarantine/. So gc never deletes anything needed, wherever repair is interrupted.
 * - Files that repair does not understand are never deleted.
 * - An interrupted repair that is run again has the same result.
 */
import { lstatSync, statSync } from 'node:fs';
import { LivesnapError } from '../../errors.js';
import { pageOps, withFingerprintBits } from '../../native/pages.js';
import {
  at,
  fillReserve,
  fsyncDirectory,
  INDEX_LOCK,
  LOCK,
  makeMissingFolders,
  namesIn,
  PACKS,
  parsePackName,
  QUARANTINE,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
  TAG_LABEL,
  TAGS,
} from '../disk/layout.js';
import { StoreLock } from '../disk/store-lock.js';
import { notAStore } from '../index/index-files.js';
import { finishReplacement, removeReplaced } from '../index/index-replacement.js';
import { parseSegmentName } from '../segment/segment-file.js';
import type { LostRange, Progress, RepairResult } from '../types.js';
import { releasePageWorkers, usePageWorkers } from '../worker/page-pool.js';
import { idsInIndex, rebuildIndex, removeOtherSegments } from './index-rebuild.js';
import { PackReplacements } from './pack-replacements.js';
import { PacksUnderRepair } from './packs-under-repair.js';
import { RepairReport } from './report.js';
import { readSnapshots, readTags } from './snapshots-and-tags.js';

export interface RepairOptions {
  /** Only for tests; see `Store.open`. */
  readonly fingerprintBits?: number;
  /** Ends the repair between two packs. A repair that has read all packs is completed. */
  readonly signal?: AbortSignal | undefined;
}

/** Errors: NOT_A_STORE, NEWER_FORMAT, STORE_BUSY, READ_ONLY, NO_SPACE, the signal's reason. */
export async function repairStore(
  dir: string,
  { fingerprintBits = 64, signal }: RepairOptions,
  progress?: Progress,
): Promise<RepairResult> {
  for (const folder of [PACKS, SNAPSHOTS, TAGS]) {
    const found = statSync(at(dir, folder), { throwIfNoEntry: false });
    if (found ? !found.isDirectory() : folder === PACKS) throw notAStore(dir);
  }
  const locks: StoreLock[] = [];
  usePageWorkers();
  const report = new RepairReport(dir);
  const packs = new PacksUnderRepair(withFingerprintBits(pageOps, fingerprintBits), fingerprintBits, report);
  try {
    finishReplacement(dir);
    const before = idsInIndex(report);
    locks.push(await StoreLock.acquire(dir, 'exclusive', LOCK, signal));
    locks.push(await StoreLock.acquire(dir, 'exclusive', INDEX_LOCK, signal));
    removeReplaced(dir);
    if (makeMissingFolders(dir)) fsyncDirectory(dir);
    return await repairFiles(report, packs, before, progress, signal);
  } catch (error) {
    throw repairError(dir, error);
  } finally {
    packs.close();
    for (const lock of locks) lock.release();
    releasePageWorkers();
  }
}

/** With both locks held. `before`: the IDs in the old index; null: it is unreadable. */
async function repairFiles(
  report: RepairReport,
  packs: PacksUnderRepair,
  before: ReadonlySet<string> | null,
  progress?: Progress,
  signal?: AbortSignal,
): Promise<RepairResult> {
  const { dir, actions } = report;
  setOtherKindsAside(report);
  await packs.read(progress, signal);
  signal?.throwIfAborted();
  const files = readSnapshots(report, before);
  const replacements = new PackReplacements(packs, report);
  let lost: LostRange[];
  let segments: ReadonlySet<number>;
  try {
    replacements.replaceDamaged(packs.markNeeded(files));
    replacements.listMissing(packs.markNeeded(files));
    const tags = readTags(report, new Set(files.map(({ description }) => description.id)));
    lost = packs.losses(files, tags);
    segments = await rebuildIndex(report, files, tags, packs.listed, packs.highestNumber);
  } catch (error) {
    replacements.removeMade();
    throw error;
  }
  replacements.setOutdatedAside();
  removeOtherSegments(dir, segments);
  fillReserve(dir);
  return { actions, healedChunks: replacements.healedChunks, lost };
}

/** Moves directories, links and pipes that have the name of a store's file to quarantine/: they may be the user's. */
function setOtherKindsAside(report: RepairReport): void {
  const { dir } = report;
  const isFileName: Record<string, (name: string) => boolean> = {
    [PACKS]: (name) => parsePackName(name) !== null,
    [SNAPSHOTS]: (name) => SNAPSHOT_ID.test(name),
    [TAGS]: (name) => TAG_LABEL.test(name),
    [SEGMENTS]: (name) => parseSegmentName(name) !== null,
  };
  for (const [folder, isOurs] of Object.entries(isFileName))
    for (const name of namesIn(dir, folder).filter(isOurs)) {
      const file = `${folder}/${name}`;
      if (!lstatSync(at(dir, file)).isFile()) report.quarantine(file, 'it is not a regular file');
    }
}

/** rm and gc cannot free space for a repair: they need the index. */
function repairError(dir: string, error: unknown): unknown {
  const known = storeError(dir, error);
  if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) return known;
  return new LivesnapError('NO_SPACE', known.message, {
    hint: `Free space elsewhere on this file system, or move ${at(dir, QUARANTINE)} to another one, and run livesnap repair again.`,
    cause: error,
  });
}
