/**
 * Guest RAM as a page source: the live rounds of a save, then the moment it shows.
 *
 * Data: dirty bitmaps in, batches of page copies out. Runs on the main thread; the vCPUs run beside it.
 * Rounds: the pages the base does not account for are given while the machine runs, then those it wrote meanwhile,
 * until few are left or their number stops shrinking. Then the vCPUs are parked, the last dirty pages are copied
 * aside, `atMoment` captures the rest of the machine, and it goes on; the copies are given afterwards. So the pause
 * waits for memory copies and ioctls only, never for the store.
 */
import type { BitSet } from '../bit-set.js';
import { copyPages } from '../native/memory.js';
import { BATCH_PAGES, PAGE_SIZE, type PageRun, type PageSource, type Region } from '../page-stream.js';
import type { DirtyPages } from './dirty-pages.js';
import type { MemorySlot } from './kvm/vm.js';

/** Few enough to copy within the pause: 4 MiB. */
const FEW_PAGES = 1024;
/** A round that leaves more than this part of the last one's pages is the last: the guest writes as fast as we read. */
const SHRINK = 0.7;
const MAX_ROUNDS = 10;

export const regionName = ({ gpa }: { gpa: number }): string => `ram@0x${gpa.toString(16)}`;

/** What the source asks of the machine at the moment that the snapshot shows. */
export interface MomentHooks {
  /** Parks the vCPUs; does nothing when they are. */
  pause(): Promise<void>;
  /** Captures everything but RAM, then lets the machine go on, or not. */
  captureAndContinue(): Promise<void>;
}

export class RamSource implements PageSource {
  readonly regions: readonly Region[];
  readonly #slots: readonly MemorySlot[];
  readonly #dirty: DirtyPages;
  readonly #hooks: MomentHooks;
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #pending: BitSet[];
  #slot = 0;
  #cursor = 0;
  #rounds = 0;
  #roundPages: number;
  /** The last pages, copied aside within the pause: what is to be given when the live rounds are over. */
  #aside: { region: number; pages: Uint32Array; bytes: Uint8Array }[] | null = null;

  constructor(slots: readonly MemorySlot[], dirty: DirtyPages, full: boolean, hooks: MomentHooks) {
    this.regions = slots.map((slot) => ({ name: regionName(slot), sizeBytes: slot.sizeBytes }));
    this.#slots = slots;
    this.#dirty = dirty;
    this.#hooks = hooks;
    this.#pending = dirty.begin(full);
    this.#roundPages = this.#count();
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    while (this.#aside === null) {
      const run = this.#takeLive(into);
      if (run) return run;
      if (!this.#isLastRound()) continue;
      await this.#reachMoment();
    }
    const part = this.#aside.shift();
    if (!part) return null;
    into.set(part.bytes);
    return { region: part.region, pages: part.pages };
  }

  #count(): number {
    return this.#pending.reduce((sum, bitmap) => sum + bitmap.count(), 0);
  }

  #takeLive(into: Uint8Array): PageRun | null {
    for (; this.#slot < this.#pending.length; this.#slot++, this.#cursor = 0) {
      const count = this.#pending[this.#slot]!.take(this.#cursor, this.#batch, BATCH_PAGES);
      if (count === 0) continue;
      const pages = this.#batch.slice(0, count);
      this.#cursor = pages[count - 1]!;
      copyPages(this.#slots[this.#slot]!.memory, pages, into);
      return { region: this.#slot, pages };
    }
    return null;
  }

  /** Harvests what was written during the round that has ended, and decides whether one more is worth it. */
  #isLastRound(): boolean {
    this.#pending = this.#dirty.harvest();
    this.#slot = 0;
    this.#cursor = 0;
    this.#rounds++;
    const left = this.#count();
    const last = left <= FEW_PAGES || left > this.#roundPages * SHRINK || this.#rounds >= MAX_ROUNDS;
    this.#roundPages = left;
    return last;
  }

  async #reachMoment(): Promise<void> {
    // Memory for the copies is made and touched before the vCPUs stand still: page faults are not part of the pause.
    // A buffer a batch: all together may be larger than one can be.
    const batch = (): Buffer => Buffer.alloc(BATCH_PAGES * PAGE_SIZE, 1);
    const batches = Math.ceil((this.#roundPages + FEW_PAGES) / BATCH_PAGES) + this.#slots.length;
    const room = Array.from({ length: batches }, batch);
    await this.#hooks.pause();
    this.#dirty.harvest().forEach((bitmap, slot) => {
      this.#pending[slot]!.addAll(bitmap);
    });
    const aside = [];
    for (;;) {
      const bytes = room.pop() ?? batch();
      const run = this.#takeLive(bytes);
      if (!run) break;
      aside.push({ ...run, bytes: bytes.subarray(0, run.pages.length * PAGE_SIZE) });
    }
    await this.#hooks.captureAndContinue();
    this.#aside = aside;
  }
}
