/**
 * The pages of a machine, its RAM and its disks, that may differ from its last save to each store.
 *
 * Thread: the main thread.
 *
 * Invariant: fetching a dirty bit clears it at its source, so it stays here until a save that covers it is committed. A
 * failed save loses none.
 */
import type { BitSet } from '../../bit-set.js';
import { type KvmMachine, setMemorySlot } from '../../native/kvm.js';
import { PAGE_BYTES } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';
import { DirtySets } from './dirty-sets.js';
import { countWritten, harvestDisks, harvestGuest, harvestRam, type WrittenBlocks } from './harvest.js';

export class DirtyPages {
  readonly #machine: KvmMachine;
  readonly #slots: readonly MemorySlot[];
  readonly #disks: readonly WrittenBlocks[];
  readonly #sets: DirtySets;
  #logging: boolean;
  #last: { readonly key: string; readonly id: string } | null = null;

  /** The regions are the slots, then the disks. `logging`: KVM logs the guest's writes already. */
  constructor(
    machine: KvmMachine,
    slots: readonly MemorySlot[],
    disks: readonly WrittenBlocks[],
    logging: boolean,
  ) {
    this.#machine = machine;
    this.#slots = slots;
    this.#disks = disks;
    this.#logging = logging;
    this.#sets = new DirtySets([
      ...slots.map(({ sizeBytes }) => sizeBytes / PAGE_BYTES),
      ...disks.map(({ blocks }) => blocks),
    ]);
  }

  /** The ID of the snapshot that the machine was last saved to or restored from. */
  get last(): string | null {
    return this.#last?.id ?? null;
  }

  /** The snapshot in the store with this key that a save can be relative to. */
  baseIn(key: string): string | null {
    return this.#sets.of(key)?.base ?? null;
  }

  /** The pages of each region that may differ from {@link baseIn}; null if there is no such snapshot. */
  since(key: string): readonly BitSet[] | null {
    return this.#sets.of(key)?.regions ?? null;
  }

  /**
   * How many pages of RAM and blocks of disks may differ from {@link last}. Null: there is no such snapshot, or this KVM
   * cannot tell. Not while the device thread harvests: what it has fetched would be missing.
   */
  count(): number | null {
    if (this.#last === null) return null;
    return countWritten(this.#machine, this.#slots, this.#disks, this.since(this.#last.key)!);
  }

  /** Begins a save: from now on every write is found by {@link harvest}. */
  begin(): void {
    if (!this.#logging) {
      this.#slots.forEach((slot, index) => {
        setMemorySlot(this.#machine, index, { ...slot, logDirty: true });
      });
      this.#logging = true;
    }
    this.harvest();
  }

  /** Fetches what the guest and the devices have written since the last call, by region. */
  harvest(): BitSet[] {
    const ram = harvestGuest(this.#machine, this.#slots);
    harvestRam(this.#slots).forEach((pages, slot) => {
      ram[slot]!.addAll(pages);
    });
    const all = [...ram, ...harvestDisks(this.#disks)];
    this.add(all);
    return all;
  }

  /** Adds what the device thread has harvested at the moment of a save, by region. */
  add(written: readonly BitSet[]): void {
    this.#sets.add(written);
  }

  /**
   * A save is committed, or the machine was restored from this snapshot. Nothing was harvested since its moment: what
   * was written later is still at its source.
   */
  commit(key: string, id: string): void {
    this.#sets.begin(key, id);
    this.#last = { key, id };
  }
}
