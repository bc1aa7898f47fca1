/**
 * The regions of a machine: what its snapshots keep as pages. This is the only module that knows which there are.
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - The list follows from the machine's config alone, so a snapshot is checked before anything is allocated.
 * - The RAM slots come first: region `i` is slot `i`.
 * - The disks follow, each a region with the name of the disk. A restore does not fill them: it reads them on demand.
 */

import { BitSet } from '../bit-set.js';
import { closeMemory, createMemory, dataRanges, writePages } from '../native/memory.js';
import { PAGE_BYTES, type PageSink, type Region } from '../page-stream.js';
import { type RamSlot, ramLayout } from './boot/memory-layout.js';
import type { MemorySlot } from './kvm/vm.js';
import type { MachineConfig } from './machine-types.js';
import { SharedBits } from './memory/shared-bits.js';
import { invalidState } from './saved-state.js';

type RegionConfig = Pick<MachineConfig, 'memoryBytes' | 'disks'>;

const ramRegion = ({ gpa, sizeBytes }: RamSlot): Region => ({ name: `ram@0x${gpa.toString(16)}`, sizeBytes });

/** The regions of a machine with this config, in the order of its snapshots. Errors: USAGE for a bad memory size. */
export const regionsOf = ({ memoryBytes, disks = [] }: RegionConfig): readonly Region[] => [
  ...ramLayout(memoryBytes).map(ramRegion),
  ...diskRegions(disks),
];

/** The regions of disks alone. */
export const diskRegions = (disks: NonNullable<RegionConfig['disks']>): readonly Region[] =>
  disks.map(({ name, sizeBytes }) => ({ name, sizeBytes }));

/** Requires that a snapshot has exactly the regions of its machine. Errors: BAD_STATE, naming the region. */
export function checkRegions(expected: readonly Region[], found: readonly Region[]): void {
  for (const { name, sizeBytes } of expected) {
    const region = found.find((each) => each.name === name);
    if (!region) throw invalidState(`region ${name} is missing`);
    if (region.sizeBytes !== sizeBytes)
      throw invalidState(`region ${name} has ${region.sizeBytes} bytes, not ${sizeBytes}`);
  }
  for (const { name } of found)
    if (!expected.some((each) => each.name === name))
      throw invalidState(`region ${name} does not belong to the machine`);
  const names = expected.map(({ name }) => name).join(', ');
  if (found.map(({ name }) => name).join(', ') !== names)
    throw invalidState(`the regions are not ${names}, each once and in this order`);
}

/** The regions of one machine, with the memory behind them. */
export class MachineRegions {
  readonly list: readonly Region[];
  readonly slots: readonly MemorySlot[];

  private constructor(list: readonly Region[], slots: readonly MemorySlot[]) {
    this.list = list;
    this.slots = slots;
  }

  /** Allocates what a machine with this config needs; all of it is zero. Call {@link free} at the end. */
  static allocate(config: RegionConfig): MachineRegions {
    const slots: MemorySlot[] = [];
    const regions = new MachineRegions(regionsOf(config), slots);
    try {
      for (const slot of ramLayout(config.memoryBytes)) {
        const written = SharedBits.allocate(slot.sizeBytes / PAGE_BYTES);
        slots.push({ ...slot, memory: createMemory(slot.sizeBytes), written });
      }
    } catch (error) {
      regions.free();
      throw error;
    }
    return regions;
  }

  /** The pages of a slot that are not holes. */
  dataPages(slot: number): BitSet {
    const { sizeBytes, memory } = this.slots[slot]!;
    const pages = new BitSet(sizeBytes / PAGE_BYTES);
    for (const { offset, length } of dataRanges(memory))
      pages.addRange(Math.floor(offset / PAGE_BYTES), Math.ceil(length / PAGE_BYTES));
    return pages;
  }

  /** What a restore fills, in memory that is still zero. */
  sink(): PageSink {
    const { slots } = this;
    return {
      regions: this.list.slice(0, slots.length),
      memories: slots.map(({ memory }) => memory),
      write: ({ region, pages }, bytes) => writePages(slots[region]!.memory, pages, bytes),
    };
  }

  free(): void {
    for (const { memory } of this.slots) closeMemory(memory);
  }
}
