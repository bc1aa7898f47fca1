/**
 * What the regions of a machine may be stored relative to in a save, and which of their pages a base does not account for.
 *
 * Thread: the main thread.
 *
 * Invariants:
 * - A base is offered only if the pages that may differ from it are known.
 * - Pages are listed after the harvest that begins a save, so what is written later is found by a later harvest.
 */
import { BitSet } from '../bit-set.js';
import type { SaveBase, SavedRegion, SaveSession } from '../page-stream.js';
import { addOverlayBlocks, dataBlocks } from './disk/data-blocks.js';
import { blocksOf } from './disk/disk-setup.js';
import type { MachineDisks } from './disk/machine-disks.js';
import type { MachineRegions } from './machine-regions.js';
import type { DirtyPages } from './memory/dirty-pages.js';

export class SaveBases {
  readonly #dirty: DirtyPages;
  readonly #regions: MachineRegions;
  readonly #disks: MachineDisks;

  constructor(dirty: DirtyPages, regions: MachineRegions, disks: MachineDisks) {
    this.#dirty = dirty;
    this.#regions = regions;
    this.#disks = disks;
  }

  /** What a region may be stored relative to in the store with this key, the best first. `except`: bases that are damaged. */
  of(key: string, region: number, except: readonly SaveBase[] = []): SavedRegion {
    const { name } = this.#regions.list[region]!;
    const own = this.#dirty.baseIn(key);
    const layer = this.#disks.list[region - this.#regions.slots.length]?.base;
    const bases: SaveBase[] = own === null ? [] : [{ snapshot: own, region: name }];
    if (layer && layer.storeKey === key) bases.push(layer.base);
    return { region: name, bases: bases.filter((base) => !except.some((each) => isSameBase(base, each))) };
  }

  /**
   * The pages of a region that its base does not account for: a set of its own. `base` null: all that may hold data.
   * `findFileData`: of the image file of disk `disk`.
   */
  async pending(
    key: string,
    region: number,
    base: SaveBase | null,
    findFileData: (disk: number) => Promise<BitSet>,
  ): Promise<BitSet> {
    const index = region - this.#regions.slots.length;
    const disk = this.#disks.list[index];
    if (base === null)
      return disk ? dataBlocks(disk, () => findFileData(index)) : this.#regions.dataPages(region);
    const pending = new BitSet(blocksOf(this.#regions.list[region]!.sizeBytes));
    if (base.snapshot === this.#dirty.baseIn(key)) pending.addAll(this.#dirty.since(key)![region]!);
    else addOverlayBlocks(disk!, pending);
    return pending;
  }
}

/** `other`: a base, or what of a snapshot is damaged. */
export const isSameBase = (
  { snapshot, region }: SaveBase,
  other: { readonly snapshot: string | null; readonly region: string | null } | undefined,
): boolean => snapshot === other?.snapshot && region === other.region;

/** The base that the store chose for a region; null: none. */
export function usedBase(
  saved: readonly SavedRegion[],
  { bases }: SaveSession,
  region: number,
): SaveBase | null {
  const used = bases[region] ?? null;
  return used === null ? null : saved[region]!.bases[used]!;
}
