/**
 * Which blocks of a disk may hold data: what a save reads when it has no base.
 *
 * Thread: the main thread.
 *
 * Invariant: what is written later is found in the dirty set, so a hole that is filled meanwhile is not missed.
 */
import { BitSet } from '../../bit-set.js';
import { regionHasData } from '../../native/region-reader.js';
import { SharedBits } from '../memory/shared-bits.js';
import { BLOCK_BYTES, blocksOf } from './disk-setup.js';
import type { MachineDisk } from './machine-disks.js';

/** As much of a stored region as one manifest block has. */
const REGION_STEP_BLOCKS = 512;

/** The blocks of the disk's image file that may hold data. */
export type FindFileData = () => Promise<BitSet>;

/** All blocks but those that are known to be zero. */
export async function dataBlocks(disk: MachineDisk, findFileData: FindFileData): Promise<BitSet> {
  const { base, sizeBytes } = disk.setup;
  const blocks = new BitSet(blocksOf(sizeBytes));
  if (base.kind === 'file') blocks.addAll(await findFileData());
  else if (base.kind === 'store')
    for (let first = 0; first < blocks.size; first += REGION_STEP_BLOCKS) {
      const length = Math.min(REGION_STEP_BLOCKS * BLOCK_BYTES, sizeBytes - first * BLOCK_BYTES);
      if (regionHasData(base.reader, first * BLOCK_BYTES, length)) blocks.addRange(first, REGION_STEP_BLOCKS);
    }
  addOverlayBlocks(disk, blocks);
  return blocks;
}

/** The blocks that were written since the disk was attached. */
export function addOverlayBlocks({ setup }: MachineDisk, into: BitSet): void {
  if (setup.overlay !== null) new SharedBits(setup.overlay.present).copyTo(into);
}

/** Whether nothing was written to the overlay of a disk since the disk was attached. */
export const isUnwritten = ({ setup }: MachineDisk): boolean =>
  setup.overlay === null || new SharedBits(setup.overlay.present).isEmpty;
