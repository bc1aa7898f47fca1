/**
 * Guest RAM as a page source: the live rounds of a save, then the moment it shows.
 *
 * Data: dirty bitmaps in, batches of page copies out. Runs on the main thread; the vCPUs run beside it.
 * Rounds: the pages the base does not account for are given while the machine runs, then those it wrote meanwhile,
 * until few are left or their number stops shrinking. Then the vCPUs are parked, the last dirty pages are copied
 * aside, `captureAndContinue` captures the rest of the machine, and it goes on; the copies are given afterwards. So the
 * pause waits for memory copies and ioctls only, not for the store.
 *
 * Invariant: memory is bounded, whatever the guest writes. Where more than {@link MAX_ASIDE_PAGES} are left, those
 * beyond it are given straight from RAM while the vCPUs are parked; only then does the pause wait for the store.
 */
import type { BitSet } from '../../bit-set.js';
import { copyPages } from '../../native/memory.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource, type Region } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';
import type { DirtyPages } from './dirty-pages.js';

/** Few enough to copy within the pause: 4 MiB. */
const FEW_PAGES = 1024;
/** A round that leaves more than this part of the last one's pages is the last: the guest writes as fast as we read. */
const SHRINK = 0.7;
const MAX_ROUNDS = 10;
/** 64 MiB: the most that is copied aside. Copying takes a pause of about 0.1 s; more would take memory by the GiB. */
export const MAX_ASIDE_PAGES = 16384;

export const regionName = ({ gpa }: { gpa: number }): string => `ram@0x${gpa.toString(16)}`;

/** Memory for a batch, touched: that it is made is not part of the pause. */
const newBatch = (): Buffer => Buffer.alloc(BATCH_PAGES * PAGE_BYTES, 1);

interface AsidePart extends PageRun {
  readonly bytes: Uint8Array;
}

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
  readonly #dirty: Pick<DirtyPages, 'begin' | 'harvest'>;
  readonly #hooks: MomentHooks;
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #pending: BitSet[];
  #slot = 0;
  #cursor = 0;
  #rounds = 0;
  #roundPages: number;
  /** How many pages are left to give, once the vCPUs are parked. */
  #parkedPages: number | null = null;
  #storedWhilePausedBytes = 0;
  #room: Buffer[] = [];
  /** The last pages, copied aside within the pause: what is to be given when the live rounds are over. */
  #aside: AsidePart[] | null = null;

  constructor(
    slots: readonly MemorySlot[],
    dirty: Pick<DirtyPages, 'begin' | 'harvest'>,
    full: boolean,
    hooks: MomentHooks,
  ) {
    this.regions = slots.map((slot) => ({ name: regionName(slot), sizeBytes: slot.sizeBytes }));
    this.#slots = slots;
    this.#dirty = dirty;
    this.#hooks = hooks;
    this.#pending = dirty.begin(full);
    this.#roundPages = this.#count();
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    while (this.#aside === null) {
      if (this.#parkedPages !== null && this.#parkedPages <= MAX_ASIDE_PAGES) {
        this.#aside = await this.#captureMoment();
        break;
      }
      const run = this.#take(into);
      if (run === null) {
        if (this.#isLastRound()) await this.#park();
        continue;
      }
      if (this.#parkedPages !== null) {
        this.#parkedPages -= run.pages.length;
        this.#storedWhilePausedBytes += run.pages.length * PAGE_BYTES;
      }
      return run;
    }
    const part = this.#aside.shift();
    if (!part) return null;
    into.set(part.bytes);
    return { region: part.region, pages: part.pages };
  }

  /** How much was given while the vCPUs were parked: nothing, unless the guest writes a lot. */
  get storedWhilePausedBytes(): number {
    return this.#storedWhilePausedBytes;
  }

  #count(): number {
    return this.#pending.reduce((sum, bitmap) => sum + bitmap.count(), 0);
  }

  #take(into: Uint8Array): PageRun | null {
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

  async #park(): Promise<void> {
    // Memory for the copies is made and touched before the vCPUs stand still: page faults are not part of the pause.
    // A buffer a batch: all together may be larger than one can be.
    const pages = Math.min(this.#roundPages + FEW_PAGES, MAX_ASIDE_PAGES);
    this.#room = Array.from({ length: Math.ceil(pages / BATCH_PAGES) + this.#slots.length }, newBatch);
    await this.#hooks.pause();
    this.#dirty.harvest().forEach((bitmap, slot) => {
      this.#pending[slot]!.addAll(bitmap);
    });
    this.#parkedPages = this.#count();
    this.#slot = 0;
    this.#cursor = 0;
  }

  async #captureMoment(): Promise<AsidePart[]> {
    const aside: AsidePart[] = [];
    for (;;) {
      const bytes = this.#room.pop() ?? newBatch();
      const run = this.#take(bytes);
      if (!run) break;
      aside.push({ ...run, bytes: bytes.subarray(0, run.pages.length * PAGE_BYTES) });
    }
    this.#room = [];
    await this.#hooks.captureAndContinue();
    return aside;
  }
}
