/**
 * A split virtqueue, seen from the device: virtio 1.2, section 2.7, with indirect descriptors and EVENT_IDX.
 *
 * Thread: the device thread.
 *
 * Invariants:
 * - No function throws, whatever the rings contain. A violation ends the use of the queue and is reported once.
 * - The avail index is read before the entries that it covers; a used entry is written before the used index.
 * - A chain is in flight from its pop until its used entry is published. Only then does its head leave the list.
 * - While suspended, nothing is popped. While frozen, neither ring nor used index changes: completions wait for `resume`.
 */
import type { DmaMemory } from '../memory/guest-memory.js';
import { type Chain, type ChainLimits, readChain, Violation } from './descriptor-chain.js';
import type { QueueState } from './queue-state.js';

/** Offsets of the fields of the rings. */
const FLAGS = 0;
const INDEX = 2;
const ENTRIES = 4;
const AVAIL_ENTRY_BYTES = 2;
const USED_ENTRY_BYTES = 8;
const DESCRIPTOR_BYTES = 16;
/** VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY. */
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

/** What the driver configures before it makes the queue ready. Addresses may have any 64-bit value. */
export interface QueueSetup {
  readonly size: number;
  readonly descriptorTable: bigint;
  readonly availRing: bigint;
  readonly usedRing: bigint;
}

/** How far the device has come: what is saved besides the setup. */
export type QueueProgress = Pick<QueueState, 'ready' | 'lastAvail' | 'usedIndex' | 'heads'>;

export interface QueueHost {
  readonly memory: DmaMemory;
  /** The queue has used entries that the driver wants to know of. */
  interrupt(): void;
  /** The driver broke the protocol; the queue is not used any more. */
  violated(problem: string): void;
}

export interface QueueFeatures {
  readonly indirect: boolean;
  readonly eventIdx: boolean;
}

const NO_FEATURES: QueueFeatures = { indirect: false, eventIdx: false };

/** `(new - event - 1) mod 2^16 < (new - old) mod 2^16` (section 2.7.7.2). */
const needsEvent = (event: number, to: number, from: number): boolean =>
  ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);

export class SplitQueue {
  readonly #host: QueueHost;
  #setup: QueueSetup | null = null;
  #features = NO_FEATURES;
  #descriptors = 0;
  #avail = 0;
  #used = 0;
  #isBroken = false;
  #isStopping = false;
  /** A queue begins frozen, as its machine. */
  #isSuspended = true;
  #isFrozen = true;
  /** The next entry of the avail ring that is popped. */
  #lastAvail = 0;
  /** The used index, with entries that are not published yet. */
  #usedIndex = 0;
  #publishedIndex = 0;
  #isNotifySuppressed = false;
  /** Popped and not published, in the order of the pops. */
  readonly #inFlight = new Set<number>();
  /** Saved in flight; popped again before anything of the avail ring. A part of {@link #inFlight}. */
  readonly #again: number[] = [];
  /** Used entries that are written and not published. */
  readonly #unpublished: number[] = [];
  /** Completions that came while the queue was frozen. */
  readonly #held: { readonly head: number; readonly writtenBytes: number }[] = [];
  readonly #entry = new Uint8Array(USED_ENTRY_BYTES);
  readonly #entryView = new DataView(this.#entry.buffer);

  constructor(host: QueueHost) {
    this.#host = host;
  }

  /** Entries of its rings; 0 if it is not ready. */
  get size(): number {
    return this.#setup?.size ?? 0;
  }

  /** Whether the driver has made it ready. A queue that is being stopped is ready until nothing is in flight. */
  get isReady(): boolean {
    return this.#setup !== null;
  }

  /** Heads of the chains that are popped and not completed, in the order of the pops. */
  get inFlight(): readonly number[] {
    return [...this.#inFlight];
  }

  get isIdle(): boolean {
    return this.#inFlight.size === 0;
  }

  /** The driver makes the queue ready. */
  start(setup: QueueSetup, features: QueueFeatures): void {
    this.clear();
    this.#place(setup, features);
  }

  /** The driver stops the queue (QueueReady = 0). Chains in flight are dropped when they are completed. */
  stop(): void {
    if (this.#setup === null) return;
    this.#isStopping = true;
    this.#forgetAgain();
    this.#finishStop();
  }

  /** Back to the state after a reset of the device. Nothing may be in flight. */
  clear(): void {
    this.#setup = null;
    this.#features = NO_FEATURES;
    this.#isBroken = false;
    this.#isStopping = false;
    this.#lastAvail = 0;
    this.#usedIndex = 0;
    this.#publishedIndex = 0;
    this.#isNotifySuppressed = false;
    this.#inFlight.clear();
    this.#again.length = 0;
    this.#unpublished.length = 0;
    this.#held.length = 0;
  }

  /** The next chain, or null. After null the driver will notify of the next one, unless the queue is suspended. */
  pop(): Chain | null {
    if (!this.#isUsable || this.#isSuspended) return null;
    const again = this.#again.shift();
    try {
      if (again !== undefined) return this.#read(again);
      if (!this.#hasNext() && !this.#askToBeNotified()) return null;
      this.#suppressNotify();
      const at = this.#avail + ENTRIES + (this.#lastAvail % this.size) * AVAIL_ENTRY_BYTES;
      const head = this.#host.memory.load16(at);
      if (head >= this.size) throw new Violation(`offered descriptor ${head} of ${this.size}`);
      if (this.#inFlight.has(head)) throw new Violation(`offered descriptor ${head} twice`);
      const chain = this.#read(head);
      this.#lastAvail = (this.#lastAvail + 1) & 0xffff;
      this.#inFlight.add(head);
      return chain;
    } catch (error) {
      if (again !== undefined) this.#inFlight.delete(again);
      this.#violate(error);
      return null;
    }
  }

  /**
   * Writes the used entry of a popped chain; {@link flush} publishes it. The chain's data is in place before.
   * @param writtenBytes how many bytes of its writable ranges were written, from the first on
   */
  complete(head: number, writtenBytes: number): void {
    if (!this.#inFlight.has(head)) return;
    if (this.#isFrozen) {
      this.#held.push({ head, writtenBytes });
      return;
    }
    if (!this.#isUsable) {
      this.#inFlight.delete(head);
      this.#finishStop();
      return;
    }
    this.#entryView.setUint32(0, head, true);
    this.#entryView.setUint32(4, writtenBytes, true);
    try {
      const at = this.#used + ENTRIES + (this.#usedIndex % this.size) * USED_ENTRY_BYTES;
      this.#host.memory.write(at, this.#entry);
    } catch (error) {
      this.#violate(error);
      return;
    }
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    this.#unpublished.push(head);
  }

  /** Publishes the used entries that were written, and interrupts the driver if it wants that. */
  flush(): void {
    if (this.#isFrozen || this.#unpublished.length === 0) return;
    for (const head of this.#unpublished.splice(0)) this.#inFlight.delete(head);
    if (!this.#isUsable) {
      this.#finishStop();
      return;
    }
    const before = this.#publishedIndex;
    try {
      // A full fence: the driver's wish is read after it can see the new index.
      this.#host.memory.store16(this.#used + INDEX, this.#usedIndex);
      this.#publishedIndex = this.#usedIndex;
      if (this.#wantsInterrupt(before)) this.#host.interrupt();
    } catch (error) {
      this.#violate(error);
    }
  }

  /** Pops nothing from now on. Completions are still published. */
  suspend(): void {
    this.#isSuspended = true;
  }

  /** Changes nothing in the guest's memory from now on: what is in flight stays so. The queue is suspended before. */
  freeze(): void {
    this.flush();
    this.#isFrozen = true;
  }

  /** Ends both, and publishes the completions that waited. The device is notified after this. */
  resume(): void {
    this.#isSuspended = false;
    this.#isFrozen = false;
    for (const { head, writtenBytes } of this.#held.splice(0)) this.complete(head, writtenBytes);
    this.flush();
    if (this.#isUsable) this.#rewriteNotify();
  }

  /** Used entries that are written and not published count as not written: their chains are in flight. */
  save(): QueueProgress {
    const ready = this.#setup !== null && !this.#isStopping;
    return {
      ready,
      lastAvail: this.#lastAvail,
      usedIndex: this.#publishedIndex,
      heads: ready ? this.inFlight : [],
    };
  }

  /** As saved. The chains that were in flight are popped again first. */
  restore(setup: QueueSetup, features: QueueFeatures, progress: QueueProgress): void {
    this.clear();
    this.#lastAvail = progress.lastAvail;
    this.#usedIndex = progress.usedIndex;
    this.#publishedIndex = progress.usedIndex;
    for (const head of progress.heads) {
      this.#inFlight.add(head);
      this.#again.push(head);
    }
    this.#place(setup, features);
    // Whether NO_NOTIFY is set is not saved.
    this.#isNotifySuppressed = true;
  }

  /** The queue may not be used until the device is reset. */
  break(): void {
    this.#isBroken = true;
    this.#forgetAgain();
  }

  get #isUsable(): boolean {
    return this.#setup !== null && !this.#isBroken && !this.#isStopping;
  }

  /** Takes the addresses over. Rings that are misaligned or not in RAM are a violation. */
  #place(setup: QueueSetup, features: QueueFeatures): void {
    this.#setup = setup;
    this.#features = features;
    const { size } = setup;
    try {
      this.#descriptors = this.#locate(
        'descriptor table',
        setup.descriptorTable,
        16,
        size * DESCRIPTOR_BYTES,
      );
      // The rings end with used_event and avail_event, which exist only with EVENT_IDX.
      const event = features.eventIdx ? 2 : 0;
      this.#avail = this.#locate(
        'avail ring',
        setup.availRing,
        2,
        ENTRIES + size * AVAIL_ENTRY_BYTES + event,
      );
      this.#used = this.#locate('used ring', setup.usedRing, 4, ENTRIES + size * USED_ENTRY_BYTES + event);
    } catch (error) {
      this.#violate(error);
    }
  }

  #locate(what: string, address: bigint, alignment: number, length: number): number {
    const gpa = Number(address);
    if (gpa % alignment !== 0 || !this.#host.memory.contains(gpa, length))
      throw new Violation(`put the ${what} at 0x${address.toString(16)}`);
    return gpa;
  }

  #read(head: number): Chain {
    const limits: ChainLimits = { size: this.size, indirect: this.#features.indirect };
    return readChain(this.#host.memory, this.#descriptors, head, limits);
  }

  #hasNext(): boolean {
    const index = this.#host.memory.load16(this.#avail + INDEX);
    const waiting = (index - this.#lastAvail) & 0xffff;
    if (waiting > this.size) throw new Violation(`offered ${waiting} chains in a queue of ${this.size}`);
    return waiting > 0;
  }

  /** Whether a chain came meanwhile. */
  #askToBeNotified(): boolean {
    this.#rewriteNotify();
    return this.#hasNext();
  }

  /** Writes avail_event, or clears NO_NOTIFY: a full fence before the avail index is read again. */
  #rewriteNotify(): void {
    const { memory } = this.#host;
    try {
      if (this.#features.eventIdx)
        memory.store16(this.#used + ENTRIES + this.size * USED_ENTRY_BYTES, this.#lastAvail);
      else if (this.#isNotifySuppressed) memory.store16(this.#used + FLAGS, 0);
      this.#isNotifySuppressed = false;
    } catch (error) {
      this.#violate(error);
    }
  }

  /** With EVENT_IDX an avail_event that is behind suppresses notifications already. */
  #suppressNotify(): void {
    if (this.#features.eventIdx || this.#isNotifySuppressed) return;
    this.#host.memory.store16(this.#used + FLAGS, NO_NOTIFY);
    this.#isNotifySuppressed = true;
  }

  #wantsInterrupt(before: number): boolean {
    const { memory } = this.#host;
    if (!this.#features.eventIdx) return (memory.load16(this.#avail + FLAGS) & NO_INTERRUPT) === 0;
    const event = memory.load16(this.#avail + ENTRIES + this.size * AVAIL_ENTRY_BYTES);
    return needsEvent(event, this.#usedIndex, before);
  }

  #finishStop(): void {
    if (this.#isStopping && this.#inFlight.size === 0) this.clear();
  }

  #forgetAgain(): void {
    for (const head of this.#again.splice(0)) this.#inFlight.delete(head);
  }

  /** A RangeError is an access outside RAM. */
  #violate(error: unknown): void {
    if (!(error instanceof Violation || error instanceof RangeError)) throw error;
    if (this.#isBroken) return;
    this.break();
    this.#host.violated(error.message);
  }
}
