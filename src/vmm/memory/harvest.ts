/**
 * Fetches which pages and blocks were written since the last harvest, from KVM's log and from livesnap's own sets.
 *
 * Thread: any, one at a time: the main thread before the moment of a save, the device thread at the moment.
 *
 * Invariant: fetching clears a bit at its source, so the caller keeps it until a save that covers it is committed.
 */
import { BitSet } from '../../bit-set.js';
import { type KvmMachine, readDirtyLog, takeDirtyLog } from '../../native/kvm.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';
import { SharedBits } from './shared-bits.js';

/** A disk, as far as its changes are concerned. */
export interface WrittenBlocks {
  readonly blocks: number;
  /** The blocks that the device thread has written (shared-bits.ts). */
  readonly written: SharedArrayBuffer;
}

/** What the guest has written, by slot. Complete when the vCPUs are parked. */
export const harvestGuest = (machine: KvmMachine, slots: readonly MemorySlot[]): BitSet[] =>
  slots.map(({ sizeBytes }, slot) => {
    const dirty = new BitSet(sizeBytes / PAGE_BYTES);
    takeDirtyLog(machine, slot, dirty.bytes);
    return dirty;
  });

/** What livesnap has written to RAM, by slot. Complete when the devices are frozen. */
export const harvestRam = (slots: readonly MemorySlot[]): BitSet[] =>
  slots.map(({ sizeBytes, written }) => taken(sizeBytes / PAGE_BYTES, written));

/** The blocks that were written, by disk. */
export const harvestDisks = (disks: readonly WrittenBlocks[]): BitSet[] =>
  disks.map(({ blocks, written }) => taken(blocks, written));

function taken(size: number, written: SharedArrayBuffer): BitSet {
  const set = new BitSet(size);
  new SharedBits(written).moveTo(set);
  return set;
}

/**
 * How many pages and blocks a harvest would find or the sets, by region, have already. Nothing is cleared. Null: this KVM
 * clears its log when it is read.
 */
export function countWritten(
  machine: KvmMachine,
  slots: readonly MemorySlot[],
  disks: readonly WrittenBlocks[],
  sets: readonly BitSet[],
): number | null {
  let count = 0;
  for (const [region, { size, written }] of [
    ...slots.map(({ sizeBytes, written }) => ({ size: sizeBytes / PAGE_BYTES, written })),
    ...disks.map(({ blocks, written }) => ({ size: blocks, written })),
  ].entries()) {
    const all = new BitSet(size);
    if (region < slots.length && !readDirtyLog(machine, region, all.bytes)) return null;
    new SharedBits(written).copyTo(all);
    all.addAll(sets[region]!);
    count += all.count();
  }
  return count;
}
