/**
 * repair: makes the index anew from packs/, snapshots/ and tags/, which are then the truth (docs/format.md,
 * "Rebuilding the index").
 *
 * Invariants: the new index is complete and fsynced under another name before it takes the old one's place; no file
 * but the index is changed, and what cannot be read is kept and named.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import { pageOps } from '../native/pages.js';
import { DamageError } from './damage.js';
import { Index, notAStore, type PackRow, type SnapshotRow } from './index-database.js';
import { finishReplacement, NEW_DATABASE, removeReplaced, replaceIndex } from './index-replacement.js';
import {
  at,
  DIRECTORY_MODE,
  fillReserve,
  INDEX_LOCK,
  PACKS,
  packFile,
  parsePackName,
  removeIfThere,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
  TAG_LABEL,
  TAGS,
} from './layout.js';
import { PackReader, PackSet } from './pack-reader.js';
import { parseSegmentName, segmentFile } from './segment-file.js';
import { rebuildSegments } from './segment-merge.js';
import { readSnapshotFile, type SnapshotFile } from './snapshot-file.js';
import { StoreLock } from './store-lock.js';
import type { Progress } from './types.js';
import { Usage } from './usage.js';

export interface RepairResult {
  /** What was done and found, a sentence each. */
  readonly actions: string[];
}

/** The index's row of a snapshot, all of it from its file. */
export function snapshotRow({ description, sizeBytes }: SnapshotFile): SnapshotRow {
  const { id, kind, vm, parent, createdAt, memoryBytes, diskBytes, packBytes, regions } = description;
  return {
    id,
    kind,
    vm,
    parent,
    createdAt,
    memoryBytes,
    diskBytes,
    storedBytes: packBytes + sizeBytes,
    logicalBytes: regions.reduce((total, region) => total + region.sizeBytes, 0),
    nonZeroPages: regions.reduce((total, region) => total + region.nonZeroPages, 0),
  };
}

/** Errors: NOT_A_STORE, NEWER_FORMAT, STORE_BUSY, READ_ONLY, NO_SPACE. */
export async function repairStore(dir: string, progress?: Progress): Promise<RepairResult> {
  for (const folder of [PACKS, SNAPSHOTS, TAGS])
    if (!statSync(at(dir, folder), { throwIfNoEntry: false })?.isDirectory()) throw notAStore(dir);
  const locks: StoreLock[] = [];
  try {
    const actions: string[] = [];
    finishReplacement(dir);
    const before = knownSnapshots(dir, actions);
    locks.push(await StoreLock.acquire(dir, 'exclusive'));
    locks.push(await StoreLock.acquire(dir, 'exclusive', INDEX_LOCK));
    removeReplaced(dir);
    await rebuild(dir, before, actions, progress);
    return { actions };
  } catch (error) {
    throw storeError(dir, error);
  } finally {
    for (const lock of locks) lock.release();
  }
}

/** The ids in the index that is there; null when it cannot be read. */
function knownSnapshots(dir: string, actions: string[]): Set<string> | null {
  try {
    const index = Index.open(dir, false);
    try {
      return new Set(index.summaries().map(({ id }) => id));
    } finally {
      index.close();
    }
  } catch (error) {
    if (error instanceof LivesnapError && (error.code === 'NEWER_FORMAT' || error.code === 'STORE_BUSY'))
      throw error;
    actions.push('The index could not be read.');
    return null;
  }
}

async function rebuild(
  dir: string,
  before: ReadonlySet<string> | null,
  actions: string[],
  progress?: Progress,
): Promise<void> {
  const { packs, nextNumber: afterPacks } = readPacks(dir, actions, progress);
  const { files, nextNumber } = readSnapshots(dir, before, packs, afterPacks, actions);
  const tags = readTags(dir, new Set(files.map(({ description }) => description.id)), actions);

  const index = Index.create(dir, NEW_DATABASE);
  let segments: Set<string>;
  try {
    index.rebuild({ snapshots: files.map(snapshotRow), tags, packs, nextNumber });
    await rebuildSegments({ dir, index }, []);
    segments = new Set(index.segments().map(({ number }) => segmentFile(number)));
    index.database.pragma('wal_checkpoint(TRUNCATE)');
  } finally {
    index.close();
  }
  replaceIndex(dir);
  for (const name of readdirSync(at(dir, SEGMENTS)))
    if (parseSegmentName(name) !== null && !segments.has(`${SEGMENTS}/${name}`))
      removeIfThere(at(dir, `${SEGMENTS}/${name}`));
  fillReserve(dir);
  actions.push(
    `The index was rebuilt: ${files.length} snapshots, ${tags.length} tags, ${packs.length} packs.`,
  );
}

/**
 * The packs that are sealed and whole. Of two generations the older one counts: it has every chunk of the newer one,
 * and the newer may be from a gc that did not come to its commit.
 */
function readPacks(
  dir: string,
  actions: string[],
  progress?: Progress,
): { packs: PackRow[]; nextNumber: number } {
  const names = readdirSync(at(dir, PACKS))
    .map(parsePackName)
    .filter((name) => name !== null)
    .sort((a, b) => a.number - b.number || a.generation - b.generation);
  const packs: PackRow[] = [];
  for (const [i, name] of names.entries()) {
    progress?.(i, names.length);
    if (packs.at(-1)?.number === name.number) continue;
    try {
      const reader = new PackReader(pageOps, dir, name);
      try {
        reader.readIdentities();
        packs.push({ ...name, chunks: reader.numbers.length, sizeBytes: reader.sizeBytes });
      } finally {
        reader.close();
      }
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      actions.push(`${error.file} was left out: ${error.why}.`);
    }
  }
  return { packs, nextNumber: Math.max(names.at(-1)?.number ?? 0, lastSegment(dir)) + 1 };
}

/** The highest number of a segment's file; those there are orphans from now on. */
function lastSegment(dir: string): number {
  mkdirSync(at(dir, SEGMENTS), { recursive: true, mode: DIRECTORY_MODE });
  return readdirSync(at(dir, SEGMENTS)).reduce(
    (last, name) => Math.max(last, parseSegmentName(name) ?? 0),
    0,
  );
}

/**
 * The snapshots whose files are whole. Packs that they need and that cannot be read get a row all the same, so that
 * gc leaves them; no number that is referred to is given again.
 */
function readSnapshots(
  dir: string,
  before: ReadonlySet<string> | null,
  packs: PackRow[],
  afterPacks: number,
  actions: string[],
): { files: SnapshotFile[]; nextNumber: number } {
  const generations = new Map(packs.map(({ number, generation }) => [number, generation]));
  const set = new PackSet(pageOps, dir, (number) => generations.get(number));
  const usage = new Usage(set);
  const files: SnapshotFile[] = [];
  try {
    for (const id of readdirSync(at(dir, SNAPSHOTS)).sort()) {
      if (!SNAPSHOT_ID.test(id)) continue;
      try {
        const file = readSnapshotFile(dir, id);
        files.push({ ...file, state: new Uint8Array(0) });
        if (before && !before.has(id))
          actions.push(
            `Snapshot ${id} was not in the index: an rm or a save that was cut short may have left it.`,
          );
        usage.addSnapshot(file);
      } catch (error) {
        if (!(error instanceof DamageError)) throw error;
        if (error.file.startsWith(PACKS))
          actions.push(`Snapshot ${id} is damaged: ${error.file}: ${error.why}.`);
        else {
          // gc would take a file that is not in the index; under this name it leaves it alone.
          renameSync(at(dir, `${SNAPSHOTS}/${id}`), at(dir, `${SNAPSHOTS}/${id}.damaged`));
          actions.push(`${error.file} was renamed to ${id}.damaged: ${error.why}.`);
        }
      }
    }
  } finally {
    set.close();
  }
  let nextNumber = afterPacks;
  for (const number of usage.all.packs()) {
    nextNumber = Math.max(nextNumber, number + 1);
    if (generations.has(number)) continue;
    const found = readdirSync(at(dir, PACKS))
      .map(parsePackName)
      .find((name) => name?.number === number);
    if (!found) continue;
    const { size } = statSync(at(dir, packFile(number, found.generation)));
    packs.push({ ...found, chunks: usage.all.count(number), sizeBytes: Math.max(1, size) });
  }
  return { files, nextNumber };
}

function readTags(
  dir: string,
  snapshots: ReadonlySet<string>,
  actions: string[],
): { label: string; snapshot: string }[] {
  const tags = new Map<string, { label: string; snapshot: string }>();
  for (const label of readdirSync(at(dir, TAGS)).sort()) {
    if (!TAG_LABEL.test(label) || label.endsWith('.tmp')) continue;
    const path = at(dir, `${TAGS}/${label}`);
    const snapshot = statSync(path).size <= 64 ? readFileSync(path, 'latin1').trim() : '';
    if (snapshots.has(snapshot)) tags.set(snapshot, { label, snapshot });
    else actions.push(`The tag ${label} names a snapshot that is not there and was left out.`);
  }
  return [...tags.values()];
}
