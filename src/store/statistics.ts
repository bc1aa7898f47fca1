/**
 * Computes the reports of `show` and `stats`: sizes of one snapshot, and of the whole store.
 *
 * The caller holds the store's lock. Both mark the chunks that all snapshots need (gc/marks.ts), so their time grows
 * with the store.
 */
import { existsSync } from 'node:fs';
import { PAGE_BYTES } from '../page-stream.js';
import type { StoreContext } from './context.js';
import { changedPages } from './diff.js';
import { DamageError, nullIfDamaged } from './disk/damage.js';
import { at, PACKS, QUARANTINE, SNAPSHOTS, TAGS } from './disk/layout.js';
import { directoryBytes, orphanBytes } from './gc/gc.js';
import { markAll } from './gc/marks.js';
import type { PackRow } from './index/index-database.js';
import { readNamed, type SnapshotFile } from './snapshot/snapshot-file.js';
import { bytesOfChunks, Usage } from './snapshot/usage.js';
import type { SnapshotDetails, SnapshotSummary, StoreStats } from './types.js';

/** Errors: DAMAGED. */
export function snapshotDetails(context: StoreContext, summary: SnapshotSummary): SnapshotDetails {
  const file = readNamed(context.dir, summary.id);
  const { machine, host } = file.description;
  const regions = file.description.regions.map(({ name, sizeBytes, nonZeroPages }) => ({
    name,
    sizeBytes,
    nonZeroPages,
    // Null as well if the comparison meets damage, perhaps of the parent. The snapshot itself may be whole.
    changedPages: nullIfDamaged(() => {
      const parent = parentOf(context, summary);
      return parent && changedPages(context, file, parent, name);
    }),
  }));
  return { ...summary, regions, ...ownAndVerified(context, file), machine, host };
}

/** Null: the store does not have it. */
function parentOf({ index, dir }: StoreContext, { parent }: SnapshotSummary): SnapshotFile | null {
  return parent !== null && index.has(parent) ? readNamed(dir, parent) : null;
}

/**
 * `uniqueBytes`: the snapshot's file, and its share of the packs whose chunks no other snapshot needs. `verifiedAt`: of
 * all its packs.
 */
function ownAndVerified(
  context: StoreContext,
  file: SnapshotFile,
): Pick<SnapshotDetails, 'uniqueBytes' | 'verifiedAt'> {
  const { id } = file.description;
  const packs = context.packSet();
  try {
    const own = new Usage(packs);
    own.addSnapshot(file);
    const others = markAll(context, id);
    let bytes = file.sizeBytes;
    for (const number of own.all.packs())
      bytes += bytesOfChunks(
        packs.pack(number),
        (chunk) => own.all.has(number, chunk) && !others.all.has(number, chunk),
      );
    return { uniqueBytes: bytes, verifiedAt: leastRecent(own.all.packs(), context.index.verifiedPacks()) };
  } catch (error) {
    throw error instanceof DamageError ? error.in(id) : error;
  } finally {
    packs.close();
  }
}

/** When the least recently verified of these packs was read. Null: one of them was not, or there are none. */
function leastRecent(packs: Iterable<number>, verified: ReadonlyMap<number, string>): string | null {
  let least: string | null = null;
  for (const pack of packs) {
    const at = verified.get(pack);
    if (at === undefined) return null;
    if (least === null || at < least) least = at;
  }
  return least;
}

/** Directories whose size is `storedBytes`. Everything else in the store counts as index. */
const DATA = [PACKS, SNAPSHOTS, TAGS, QUARANTINE];

/** Errors: DAMAGED when a snapshot cannot be read. */
export function storeStats(context: StoreContext): StoreStats {
  const { index, dir } = context;
  if (context.write) index.checkpoint();
  const usage = markAll(context);
  const { snapshots, logicalBytes, nonZeroPages } = index.totals();
  const packRows = index.packs();
  const packs = context.packSet();
  let deadBytes = orphanBytes(context);
  try {
    for (const { number } of packRows) {
      if (!packs.has(number)) continue; // gc has deleted it meanwhile
      deadBytes += bytesOfChunks(packs.pack(number), (chunk) => !usage.all.has(number, chunk));
    }
  } finally {
    packs.close();
  }
  // The -shm file exists only while a process has the index open.
  const indexBytes = directoryBytes(dir, (name) => !DATA.includes(name) && !name.endsWith('-shm'));
  const storedBytes = DATA.filter((name) => existsSync(at(dir, name))).reduce(
    (total, name) => total + directoryBytes(at(dir, name)),
    0,
  );
  const verified = index.verifiedPacks();
  const sizeOf = (rows: readonly PackRow[]): number => rows.reduce((total, row) => total + row.sizeBytes, 0);
  return {
    snapshots,
    logicalBytes,
    nonZeroBytes: nonZeroPages * PAGE_BYTES,
    uniqueBytes: usage.pages.size * PAGE_BYTES,
    storedBytes,
    indexBytes,
    deadBytes,
    chunks: usage.pages.size,
    packs: packRows.length,
    packBytes: sizeOf(packRows),
    verifiedBytes: sizeOf(packRows.filter(({ number }) => verified.has(number))),
    verifiedAt: leastRecent(verified.keys(), verified),
    ratio: logicalBytes / (storedBytes + indexBytes),
  };
}
