/**
 * Fills memories from regions of a snapshot, on native threads (docs/format.md, "How a reader verifies data").
 *
 * Thread: any. No function blocks.
 *
 * Invariants:
 * - A page is verified before it is in its memory. Pages that are zero stay holes.
 * - Whoever reads a page of a memory that is filled lazily waits until the page is there, and needs no JavaScript for it.
 * - A lazy fill that fails halts its machine first. So no guest sees a page that is missing.
 */
import { addon } from './addon.js';
import type { KvmMachine } from './kvm.js';
import type { MemoryHandle } from './memory.js';
import type { RegionReader, RegionReaderError } from './region-reader.js';

/** A memory, still zero, and the reader of the region that fills it. */
export interface FillPair {
  readonly memory: MemoryHandle;
  readonly reader: RegionReader;
}

/** Why a fill failed. */
export interface FillError extends RegionReaderError {
  /** Relative to the store. Empty: the memory could not be written, and `why` is the system call. */
  readonly file: string;
  /** Index of the pair. */
  readonly pair: number;
  /** Offset of the page in its memory, in bytes; null: of no single page. */
  readonly pageOffset: number | null;
}

interface FillFunctions {
  fillPossible(): number;
  fillStart(pairs: Uint32Array, lazy: boolean, wanted: Uint32Array, ended: () => void): number;
  fillFaults(fill: number): Uint32Array;
  fillState(fill: number): [boolean, number, number];
  fillError(fill: number): [number, string, number, string, number, number] | null;
  fillAttach(machine: KvmMachine, fill: number): void;
  fillHurry(fill: number): void;
  fillClose(fill: number): void;
}

const native = (): FillFunctions => addon();

/** Null if this process may serve the page faults of a guest, else the errno of userfaultfd(2). */
export function lazyFillErrno(): number | null {
  const errno = native().fillPossible();
  return errno === 0 ? null : errno;
}

const orNull = (offset: number): number | null => (offset < 0 ? null : offset);

export class MemoryFill {
  /** Settles when its threads have ended: all is filled, or it failed, or it was closed. */
  readonly ended: Promise<void>;
  readonly #handle: number;

  /**
   * Starts it. A lazy one does not keep the process alive. The readers stay open until it has ended.
   * @param wanted pair and page, in turn, as {@link faults}: a lazy fill begins with these
   * @throws SystemError for a lazy one where {@link lazyFillErrno} is not null
   */
  constructor(
    pairs: readonly FillPair[],
    { lazy, wanted = new Uint32Array(0) }: { lazy: boolean; wanted?: Uint32Array },
  ) {
    let tell: () => void;
    this.ended = new Promise((resolve) => {
      tell = resolve;
    });
    const numbers = Uint32Array.from(pairs.flatMap(({ memory, reader }) => [memory, reader]));
    this.#handle = native().fillStart(numbers, lazy, wanted, () => tell());
  }

  /** All pages that are not zero are in place. */
  get isComplete(): boolean {
    return native().fillState(this.#handle)[0];
  }

  get progress(): { readonly doneBytes: number; readonly totalBytes: number } {
    const [, doneBytes, totalBytes] = native().fillState(this.#handle);
    return { doneBytes, totalBytes };
  }

  /** What somebody has waited for so far, in that order: pair and page, in turn. A window begins with the page. */
  get faults(): Uint32Array {
    return native().fillFaults(this.#handle);
  }

  /** Null: it has not failed. */
  get error(): FillError | null {
    const error = native().fillError(this.#handle);
    if (!error) return null;
    const [errno, file, offset, why, pair, pageOffset] = error;
    return { errno, file, offset: orNull(offset), why, pair, pageOffset: orNull(pageOffset) };
  }

  /** The machine is halted when this fails, at once if it has failed, and the end of the machine ends this. */
  attach(machine: KvmMachine): void {
    native().fillAttach(machine, this.#handle);
  }

  /** Somebody waits for its end. */
  hurry(): void {
    native().fillHurry(this.#handle);
  }

  /** Ends it, filled or not, and drops it. No machine runs on memory that is not filled. */
  close(): void {
    native().fillClose(this.#handle);
  }
}
