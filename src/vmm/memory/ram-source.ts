/**
 * Reads guest RAM for a save, page by page, while the guest runs.
 *
 * Thread: the main thread. The vCPUs run beside it.
 *
 * Steps:
 * 1. The first round gives every page that the base does not account for. Each later round gives the pages that were
 *    written during the round before.
 * 2. The rounds end when few pages are left or their number no longer shrinks. Then the vCPUs are parked.
 * 3. The last pages are copied aside, the rest of the machine is captured, and the guest continues.
 * 4. The copies are given. So the pause takes memory copies and ioctls only, and does not wait for the store.
 *
 * Invariants:
 * - All pages together are of one moment: when the rest of the machine is captured.
 * - Memory is bounded, whatever the guest writes. If more than {@link MAX_ASIDE_PAGES} pages are left at the pause, the
 *   excess is given straight from RAM while the vCPUs are parked. Only then does the pause wait for the store.
 */
import assert from 'node:assert/strict';
import type { BitSet } from '../../bit-set.js';
import { copyPages } from '../../native/memory.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource, type Region } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';

/** Few enough to copy within the pause: 4 MiB. */
const FEW_PAGES = 1024;
/** A round that leaves more than this part of its pages is the last: the guest writes as fast as pages are stored. */
const SHRINK = 0.7;
const MAX_ROUNDS = 10;
/** The most pages that are copied aside: 64 MiB, which takes about 0.1 s of the pause. */
export const MAX_ASIDE_PAGES = 16384;

/** Memory for a batch. It is written once, so that its page faults are over before the pause. */
const newBatch = (): Buffer => Buffer.alloc(BATCH_PAGES * PAGE_BYTES, 1);

interface AsidePart extends PageRun {
  readonly bytes: Uint8Array;
}

/** How the source stops the machine for the moment of the snapshot. */
export interface MomentHooks {
  /** Parks the vCPUs. Does nothing if they are parked. */
  pause(): Promise<void>;
  /** Captures everything but RAM. Then resumes the machine, unless it stays paused. */
  captureAndContinue(): Promise<void>;
}

export interface RamSourceOptions {
  /** All regions of the machine; region `i` is slot `i`. */
  readonly regions: readonly Region[];
  readonly slots: readonly MemorySlot[];
  /** The pages of each slot that the base does not account for. */
  readonly pending: readonly BitSet[];
  /** Fetches the pages of each slot that were written since the last call. */
  harvest(): readonly BitSet[];
  readonly hooks: MomentHooks;
}

export class RamSource implements PageSource {
  readonly regions: readonly Region[];
  readonly #slots: readonly MemorySlot[];
  readonly #harvest: () => readonly BitSet[];
  readonly #hooks: MomentHooks;
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #pending: readonly BitSet[];
  #slot = 0;
  #cursor = 0;
  #rounds = 0;
  #roundPages: number;
  /** How many pages are left; null until the vCPUs are parked. */
  #parkedPages: number | null = null;
  #storedWhilePausedBytes = 0;
  #room: Buffer[] = [];
  /** The last pages, copied aside within the pause and given after it; null until then. */
  #aside: AsidePart[] | null = null;

  constructor({ regions, slots, pending, harvest, hooks }: RamSourceOptions) {
    assert(slots.every(({ sizeBytes }, i) => regions[i]?.sizeBytes === sizeBytes));
    this.regions = regions;
    this.#slots = slots;
    this.#harvest = harvest;
    this.#hooks = hooks;
    this.#pending = pending;
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

  /** Copies the next pending pages of the round; null at its end. */
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

  /** Makes the pages pending that were written during the round, and decides whether the live rounds are over. */
  #isLastRound(): boolean {
    this.#pending = this.#harvest();
    this.#slot = 0;
    this.#cursor = 0;
    this.#rounds++;
    const left = this.#count();
    const last = left <= FEW_PAGES || left > this.#roundPages * SHRINK || this.#rounds >= MAX_ROUNDS;
    this.#roundPages = left;
    return last;
  }

  async #park(): Promise<void> {
    // One buffer for each batch, because all of them may exceed the size of one buffer.
    const pages = Math.min(this.#roundPages + FEW_PAGES, MAX_ASIDE_PAGES);
    this.#room = Array.from({ length: Math.ceil(pages / BATCH_PAGES) + this.#slots.length }, newBatch);
    await this.#hooks.pause();
    this.#harvest().forEach((bitmap, slot) => {
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
