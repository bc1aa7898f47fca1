/**
 * The parts of a commit that need nothing of the save but its result: the description of the snapshot, and its file.
 * The transaction, which is the commit point, is in save.ts.
 *
 * Invariant: what is written here can be read back. Everything is checked before the file exists.
 */
import { randomBytes } from 'node:crypto';
import type { Region, SnapshotMetadata } from '../../page-stream.js';
import type { StoreContext } from '../context.js';
import type { BlockList } from '../snapshot/block-list.js';
import { areRegions, isDescribable, pagesOf, type SnapshotDescription } from '../snapshot/description.js';
import { MAX_STATE_BYTES, type WrittenSnapshot, writeSnapshotFile } from '../snapshot/snapshot-file.js';
import { requireTagLabels } from '../tags.js';
import { makeRoom } from './room-for-snapshot.js';

/** What a copy keeps of its original. */
export type SnapshotOrigin = Pick<SnapshotDescription, 'id' | 'parent' | 'createdAt'>;

export const newOrigin = (parent: string | null): SnapshotOrigin => ({
  id: randomBytes(16).toString('hex'),
  parent,
  createdAt: new Date().toISOString(),
});

/** Errors: USAGE (the tags), RangeError (a mistake of the caller). */
export function requireCommittable({ tags, state }: SnapshotMetadata, regions: readonly Region[]): void {
  requireTagLabels(tags);
  if (state.length > MAX_STATE_BYTES) throw new RangeError('the state is larger than 64 MiB');
  if (!areRegions(regions)) throw new RangeError('the regions have bad names or sizes');
}

export function describeSnapshot(
  { kind, vm, memoryBytes, diskBytes, machine, host }: SnapshotMetadata,
  { id, parent, createdAt }: SnapshotOrigin,
  regions: readonly Region[],
  blocks: BlockList,
  packBytes: number,
): SnapshotDescription {
  const nonZeroPages = regions.map(() => 0);
  for (const entry of blocks) nonZeroPages[entry.region]! += entry.nonZeroPages;
  const description = {
    id,
    kind,
    vm,
    parent,
    createdAt,
    memoryBytes,
    diskBytes,
    packBytes,
    regions: regions.map(({ name, sizeBytes }, i) => ({ name, sizeBytes, nonZeroPages: nonZeroPages[i]! })),
    machine,
    host,
  };
  if (!isDescribable(description))
    throw new RangeError('the description of the machine is too long or nested too deeply');
  return description;
}

/** Pages of all regions, and those of them that are zero. */
export function countPages({ regions }: SnapshotDescription): { pages: number; zeroPages: number } {
  let pages = 0;
  let nonZeroPages = 0;
  for (const region of regions) {
    pages += pagesOf(region.sizeBytes);
    nonZeroPages += region.nonZeroPages;
  }
  return { pages, zeroPages: pages - nonZeroPages };
}

/**
 * Writes and fsyncs `snapshots/ID` of a copy, when its packs are durable. The caller fsyncs the directory. Errors:
 * STORE_BUSY, {@link SnapshotExistsError}.
 */
export async function writeCopiedSnapshot(
  context: StoreContext,
  description: SnapshotDescription,
  blocks: BlockList,
  state: Uint8Array,
): Promise<WrittenSnapshot> {
  for (;;) {
    await makeRoom(context, description.id);
    try {
      return writeSnapshotFile(context.dir, description, blocks, state);
    } catch (error) {
      // Another copy of the snapshot has created the file since.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}
