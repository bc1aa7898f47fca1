/**
 * Which blocks of a disk may hold data: what a save reads when it has no base.
 *
 * Thread: the main thread.
 *
 * Invariant: what is written later is found in the dirty set, so a hole that is filled meanwhile is not missed.
 */
import { BitSet } from '../../bit-set.js';
import { nextData } from '../../native/files.js';
import { regionHasData } from '../../native/region-reader.js';
import { SharedBits } from '../memory/shared-bits.js';
import { BLOCK_BYTES, blocksOf } from './disk-setup.js';
import type { MachineDisk } from './machine-disks.js';

/** As much of a stored region as one manifest block has. */
const REGION_STEP_BLOCKS = 512;

/** All blocks but those that are known to be zero. */
export function dataBlocks(disk: MachineDisk): BitSet {
  const { base, sizeBytes } = disk.setup;
  const blocks = new BitSet(blocksOf(sizeBytes));
  if (base.kind === 'file') addFileData(base.fd, sizeBytes, blocks);
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

function addFileData(fd: number, sizeBytes: number, into: BitSet): void {
  try {
    for (let at = 0; at < sizeBytes; ) {
      const data = nextData(fd, at);
      if (data === null) return;
      const first = Math.floor(data.begin / BLOCK_BYTES);
      into.addRange(first, Math.ceil(data.end / BLOCK_BYTES) - first);
      at = data.end;
    }
  } catch {
    // A block device, or a file system that does not know its holes.
    into.addRange(0, into.size);
  }
}
