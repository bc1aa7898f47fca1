/**
 * What may differ from the last save in each store: a set of pages for each region, and the snapshot that they are
 * compared with. So a machine that is saved to several stores in turn stores only changes in each.
 *
 * Thread: the main thread.
 *
 * Invariant: a page stays in the set of a store until a save to that store that covers it is committed.
 */
import { BitSet } from '../../bit-set.js';

/** For how many stores changes are known. The store that was saved to longest ago is forgotten: it gets a full save. */
export const MAX_STORES = 4;

interface Changes {
  /** ID of the snapshot. */
  readonly base: string;
  readonly regions: readonly BitSet[];
}

export class DirtySets {
  readonly #sizes: readonly number[];
  /** By SaveTarget.key; the store that was saved to last is the last. */
  readonly #stores = new Map<string, Changes>();

  /** `sizes`: the number of pages of each region. */
  constructor(sizes: readonly number[]) {
    this.#sizes = sizes;
  }

  /** What changed since the last save to this store; null if that is not known. */
  of(key: string): Changes | null {
    return this.#stores.get(key) ?? null;
  }

  /** Adds changed pages, by region, to the sets of all stores. */
  add(changed: readonly BitSet[]): void {
    for (const { regions } of this.#stores.values())
      changed.forEach((pages, region) => {
        regions[region]!.addAll(pages);
      });
  }

  /** The machine, as it was before the changes that are added from now on, is a snapshot of this store. */
  begin(key: string, base: string): void {
    this.#stores.delete(key);
    const oldest = this.#stores.keys().next();
    if (this.#stores.size === MAX_STORES && !oldest.done) this.#stores.delete(oldest.value);
    this.#stores.set(key, { base, regions: this.#sizes.map((size) => new BitSet(size)) });
  }
}
