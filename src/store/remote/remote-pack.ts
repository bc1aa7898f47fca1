/**
 * The bytes of a pack of a remote, as far as they have been fetched. Lists and manifest frames are kept to the end
 * of the copy, a hundredth of the pack; pages are passed on and forgotten: only one pack at a time has some here.
 */
import { DamageError } from '../damage.js';
import type { PackBytes } from '../pack-reader.js';
import type { Spool } from './spool.js';

/** Bytes of a pack from `from` to `to`, at a place in a spool. */
interface Extent {
  readonly from: number;
  readonly to: number;
  readonly at: number;
}

const holds = (extent: Extent | null, from: number, to: number): extent is Extent =>
  extent !== null && extent.from <= from && extent.to >= to;

/** Where pages are on their way; what another pack had here is gone then. */
export class PageWindow {
  owner: RemotePack | null = null;
  extent: Extent | null = null;

  constructor(readonly spool: Spool) {}

  /** Appends to the spool. */
  readonly take = (part: Uint8Array): void => this.spool.append(part);

  /** Begins anew with bytes of a pack from `from` on, which are then appended to the spool. */
  begin(owner: RemotePack | null, from: number): void {
    this.spool.clear();
    this.owner = owner;
    this.extent = { from, to: from, at: 0 };
  }

  /** What was appended counts now. */
  end(): void {
    const { from } = this.extent!;
    this.extent = { from, to: from + this.spool.sizeBytes, at: 0 };
  }
}

export class RemotePack implements PackBytes {
  /** Ascending. */
  readonly #kept: Extent[] = [];

  /** `isWhole`: the remote gives no part of it. */
  constructor(
    readonly file: string,
    readonly generation: number,
    readonly sizeBytes: number,
    readonly isWhole: boolean,
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

  /** What was appended to the kept spool since it had `at` bytes is the pack's from `from` on. */
  kept(from: number, at: number): void {
    this.#kept.push({ from, to: from + this.lists.sizeBytes - at, at });
    this.#kept.sort((a, b) => a.from - b.from);
  }

  /** Keeps what is in the window. */
  keepFromWindow(from: number, to: number): void {
    const at = this.lists.sizeBytes;
    const part = Buffer.alloc(Math.min(to - from, 1 << 20));
    for (let position = from; position < to; ) {
      const got = this.#read(part, 0, Math.min(part.length, to - position), position);
      if (got === 0) throw new Error('these bytes are not here');
      this.lists.append(part.subarray(0, got));
      position += got;
    }
    this.kept(from, at);
  }

  /** Errors: DAMAGED when that was not fetched, which it was if the pack is as its lists say. */
  readInto(bytes: Uint8Array, offset: number, length: number): void {
    for (let done = 0; done < length; ) {
      const got = this.#read(bytes, done, length - done, offset + done);
      if (got === 0) throw new DamageError(this.file, offset, 'the file ends too early');
      done += got;
    }
  }

  #read(into: Uint8Array, offset: number, length: number, position: number): number {
    const found = this.#find(position, position + length);
    if (!found) return 0;
    return found.spool.read(into, offset, length, found.extent.at + position - found.extent.from);
  }

  /** One reader is closed and the next opened; the bytes stay. */
  close(): void {}
}
