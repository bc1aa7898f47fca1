/**
 * Reads guest RAM for a save, page by page, while the guest runs.
 *
 * Thread: the main thread. The vCPUs run beside it.
 *
 * Steps:
 * 1. The first round gives every page that the base does not account for. Each later round gives the pages that were
 *    written during the round before.
 * 2. The rounds end when few pages are left or their number no longer shrinks. Then an empty run lets the store finish
 *    its work, so that its threads do not take processors from the moment.
 * 3. The moment is one request to the device thread: it parks the vCPUs, copies the last pages aside, captures the rest of
 *    the machine, and lets the guest continue.
 * 4. The copies are given. So the pause takes memory copies and ioctls only, and does not wait for the store.
 *
 * Invariants:
 * - All pages together are of one moment: when the rest of the machine is captured.
 * - Memory is bounded, whatever the guest writes. If more than {@link MAX_ASIDE_PAGES} pages are left at the pause, the
 *   excess is given straight from RAM while the vCPUs are parked. Only then does the pause wait for the store.
 */
import assert from 'node:assert/strict';
import type { BitSet } from '../../bit-set.js';
import { discardBytes } from '../../native/heap.js';
import { copyPages } from '../../native/memory.js';
import { BATCH_PAGES, PAGE_BYTES, type PageRun, type PageSource, type Region } from '../../page-stream.js';
import type { MemorySlot } from '../kvm/vm.js';
import { type AsidePart, MAX_ASIDE_PAGES } from './moment-pages.js';

/** Few enough to copy within the pause: 4 MiB. */
const FEW_PAGES = 1024;
/** A round that leaves more than this part of its pages is the last: the guest writes as fast as pages are stored. */
const SHRINK = 0.7;
const MAX_ROUNDS = 10;
/** Room for pages that are written between the last round and the moment. More is allocated in the pause. */
const SPARE_PAGES = 128;

/** What a moment gives. */
export interface RamMoment {
  /** The pages of each slot that were written since the last harvest. */
  readonly written: readonly BitSet[];
  /**
   * Copies of these pages and of the pending ones; everything else is captured, and the machine continues. Null: they are
   * too many, and the machine is paused with nothing captured.
   */
  readonly aside: readonly AsidePart[] | null;
}

/**
 * Captures the machine, with the pages of each slot that are not given yet. `room`: shared memory for the copies, written
 * once, so that its page faults are over.
 */
export type CaptureMoment = (pending: readonly BitSet[], room: SharedArrayBuffer) => Promise<RamMoment>;

export interface RamSourceOptions {
  /** All regions of the machine; region `i` is slot `i`. */
  readonly regions: readonly Region[];
  readonly slots: readonly MemorySlot[];
  /** The pages of each slot that the base does not account for. */
  readonly pending: readonly BitSet[];
  /** Fetches the pages of each slot that were written since the last call. */
  harvest(): readonly BitSet[];
  readonly capture: CaptureMoment;
}

export class RamSource implements PageSource {
  readonly regions: readonly Region[];
  readonly #slots: readonly MemorySlot[];
  readonly #harvest: () => readonly BitSet[];
  readonly #capture: CaptureMoment;
  readonly #batch = new Uint32Array(BATCH_PAGES);
  #pending: readonly BitSet[];
  #slot = 0;
  #cursor = 0;
  #rounds = 0;
  #roundPages: number;
  /** How many pages are left; null until the vCPUs are parked. */
  #parkedPages: number | null = null;
  #storedWhilePausedBytes = 0;
  #isLive = true;
  /** The last pages, copied aside within the pause and given after it; null until then. */
  #aside: AsidePart[] | null = null;
  /** The memory of these copies. */
  readonly #rooms = new Set<ArrayBufferLike>();

  constructor({ regions, slots, pending, harvest, capture }: RamSourceOptions) {
    assert(slots.every(({ sizeBytes }, i) => regions[i]?.sizeBytes === sizeBytes));
    this.regions = regions;
    this.#slots = slots;
    this.#harvest = harvest;
    this.#capture = capture;
    this.#pending = pending;
    this.#roundPages = this.#count();
  }

  async next(into: Uint8Array): Promise<PageRun | null> {
    while (this.#aside === null) {
      if (!this.#isLive && (this.#parkedPages ?? 0) <= MAX_ASIDE_PAGES) {
        await this.#takeMoment();
        continue;
      }
      const run = this.#take(into);
      if (run !== null) {
        if (this.#parkedPages !== null) {
          this.#parkedPages -= run.pages.length;
          this.#storedWhilePausedBytes += run.pages.length * PAGE_BYTES;
        }
        return run;
      }
      if (this.#isLastRound()) {
        this.#isLive = false;
        return { region: 0, pages: new Uint32Array(0) };
      }
    }
    const part = this.#aside.shift();
    if (!part) {
      // V8 would keep the rooms of many saves until it collects garbage.
      for (const room of this.#rooms) discardBytes(new Uint8Array(room));
      this.#rooms.clear();
      return null;
    }
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

  async #takeMoment(): Promise<void> {
    const pages = Math.min(this.#count() * 2 + SPARE_PAGES, MAX_ASIDE_PAGES);
    const room = new SharedArrayBuffer(pages * PAGE_BYTES);
    new Uint8Array(room).fill(1);
    this.#rooms.add(room);
    const { written, aside } = await this.#capture(this.#pending, room);
    if (aside !== null) {
      this.#aside = [...aside];
      for (const { bytes } of aside) this.#rooms.add(bytes.buffer);
      return;
    }
    written.forEach((bitmap, slot) => {
      this.#pending[slot]!.addAll(bitmap);
    });
    this.#parkedPages = this.#count();
    this.#slot = 0;
    this.#cursor = 0;
  }
}
