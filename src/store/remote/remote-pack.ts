/**
 * The fetched bytes of a remote pack.
 *
 * Lists and manifest frames are kept until the copy of the snapshot ends: a hundredth of the pack. Pages are dropped
 * once they are passed on: only one pack at a time has some, in the page window.
 */
import { DamageError } from '../disk/damage.js';
import type { PackBytes } from '../pack/pack-lists.js';
import type { Spool } from './spool.js';

/** The bytes `from` to `to` of a pack, at offset `at` of a spool. */
interface Extent {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

const holds = (extent: Extent | null, from: number, to: number): extent is Extent =>
  extent !== null && extent.from <= from && extent.to >= to;

/** One extent of pages of one pack. The next extent replaces it. */
export class PageWindow {
  owner: RemotePack | null = null;
  extent: Extent | null = null;

  constructor(readonly spool: Spool) {}

  /** Appends to the new extent. */
  readonly append = (part: Uint8Array): void => this.spool.append(part);

  /** Starts a new, empty extent at offset `from` of a pack. */
  begin(owner: RemotePack | null, from: number): void {
    this.spool.clear();
    this.owner = owner;
    this.extent = { from, to: from, at: 0 };
  }

  /** Makes the appended bytes readable. */
  end(): void {
    const { from } = this.extent!;
    this.extent = { from, to: from + this.spool.sizeBytes, at: 0 };
  }
}

export class RemotePack implements PackBytes {
  /** Ascending. */
  readonly #kept: Extent[] = [];

  /** `wholeOnly`: the remote does not support ranges. */
  constructor(
    readonly file: string,
    readonly generation: number,
    readonly sizeBytes: number,
    readonly wholeOnly: boolean,
    readonly lists: Spool,
    readonly window: PageWindow,
  ) {}

  #find(from: number, to: number): { extent: Extent; spool: Spool } | null {
    let low = 0;
    let high = this.#kept.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#kept[middle]!.to <= from) low = middle + 1;
      else high = middle;
    }
    const kept = this.#kept[low] ?? null;
    if (holds(kept, from, to)) return { extent: kept, spool: this.lists };
    const { owner, extent, spool } = this.window;
    return owner === this && holds(extent, from, to) ? { extent, spool } : null;
  }

  has(from: number, to: number): boolean {
    return this.#find(from, to) !== null;
  }

  /** Records that `lists`, from its offset `at` to its end, holds the bytes of the pack from `from` on. */
  recordKept(from: number, at: number): void {
    this.#kept.push({ from, to: from + this.lists.sizeBytes - at, at });
    this.#kept.sort((a, b) => a.from - b.from);
  }

  /** Copies bytes from the window to `lists`. */
  keepFromWindow(from: number, to: number): void {
    const at = this.lists.sizeBytes;
    const part = Buffer.alloc(Math.min(to - from, 1 << 20));
    for (let position = from; position < to; ) {
      const length = this.#read(part, 0, Math.min(part.length, to - position), position);
      if (length === 0) throw new Error('these bytes are not in the window');
      this.lists.append(part.subarray(0, length));
      position += length;
    }
    this.recordKept(from, at);
  }

  /** Errors: DAMAGED when the bytes were not fetched: the lists of the pack are wrong. */
  readInto(bytes: Uint8Array, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const count = this.#read(bytes, done, length - done, offset + done);
      if (count === 0) throw new DamageError(this.file, offset, 'the file ends too early');
      done += count;
    }
  }

  #read(into: Uint8Array, offset: number, length: number, position: number): number {
    const found = this.#find(position, position + length);
    if (!found) return 0;
    return found.spool.read(into, offset, length, found.extent.at + position - found.extent.from);
  }

  /** Keeps the bytes: the next reader of this pack uses them. */
  close(): void {}
}
