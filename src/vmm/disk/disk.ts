/**
 * A disk of a machine: a base, an overlay with the blocks that were written, and the blocks that a save still needs.
 *
 *     guest ──▶ read: overlay, else base            write: overlay, or a base that is written itself
 *     save  ──▶ blocks set aside, else as the guest reads them
 *
 * Thread: the device thread. The bytes move on the threads of the I/O engine.
 *
 * Invariants:
 * - A block is marked as written after its transfer has ended, also if that failed, and before the caller is told.
 * - A block joins the overlay when all of its bytes are there. Until then reads give the base's.
 * - Requests within one block wait for its copy from the base, and for a first write that covers it.
 * - A discarded block is zero. It never shows the base again.
 * - After a flush has failed, every flush fails: the host reports a lost write once, and a later sync succeeds without it.
 * - A write to a frozen block waits until its old bytes are set aside. If that fails, the save fails, and the write
 *   continues.
 * - A write that is in flight at the moment of a save may reach a frozen block late. The save has the request as
 *   unfinished, so the restored machine writes all of its bytes again; the bytes beside them are not affected.
 */
import { constants } from 'node:os';
import type { BitSet } from '../../bit-set.js';
import { type MemoryHandle, readMemory, writeMemory } from '../../native/memory.js';
import { SharedBits } from '../memory/shared-bits.js';
import {
  type BlockIo,
  type FilePlace,
  type IoDone,
  type MemoryRange,
  rangeCutter,
  whenAll,
} from './block-io.js';
import { BlockLocks } from './block-locks.js';
import { BLOCK_BYTES, blocksOf, type DiskSetup } from './disk-setup.js';
import { type AsidePlace, FrozenBlocks, type FrozenOptions } from './frozen-blocks.js';
import { Overlay } from './overlay.js';

const { EOPNOTSUPP, EIO } = constants.errno;

/** How often a failed read of a store is tried in all: gc may replace a pack between two looks at it. */
const STORE_ATTEMPTS = 3;

/** Why a request failed. */
export interface DiskFailure {
  readonly errno: number;
  /** Completes the sentence "DISK …": `cannot read block 5 of snapshot 1234…:disk0`. */
  readonly what: string;
}

/** It may be called at once. */
export type DiskDone = (failure: DiskFailure | null) => void;

export interface DiskParts {
  readonly io: BlockIo;
  /** A memory of zeros. */
  readonly zeros: { readonly memory: MemoryHandle; readonly sizeBytes: number };
  readonly scratch: FrozenOptions;
  /** For tests: see Overlay. */
  readonly freeBytes?: (fd: number) => number;
}

/** Bytes of the disk that are in one layer. */
interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isInOverlay: boolean;
}

export class Disk {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly #setup: DiskSetup;
  readonly #io: BlockIo;
  readonly #zeros: DiskParts['zeros'];
  readonly #overlay: Overlay | null;
  readonly #written: SharedBits;
  readonly #locks = new BlockLocks();
  readonly #frozen: FrozenBlocks;
  /** Of the first flush that failed; 0: none has. */
  #flushErrno = 0;

  constructor(setup: DiskSetup, { io, zeros, scratch, freeBytes }: DiskParts) {
    this.name = setup.name;
    this.sizeBytes = setup.sizeBytes;
    this.readOnly = setup.readOnly;
    this.#setup = setup;
    this.#io = io;
    this.#zeros = zeros;
    this.#overlay = setup.overlay && new Overlay(setup.overlay, blocksOf(setup.sizeBytes), io, freeBytes);
    this.#written = new SharedBits(setup.written);
    this.#frozen = new FrozenBlocks(scratch);
  }

  // Requests of the guest. The caller has checked the bounds.

  read(offset: number, ranges: readonly MemoryRange[], done: DiskDone): void {
    const pieces = this.#pieces(offset, lengthOf(ranges));
    const all = whenEach(pieces.length, done);
    const take = rangeCutter(ranges);
    for (const piece of pieces) this.#readPiece(piece, take(piece.length), all);
  }

  write(offset: number, ranges: readonly MemoryRange[], done: DiskDone): void {
    this.#change(
      offset,
      lengthOf(ranges),
      true,
      (to, transferred) => this.#io.write(to, ranges, transferred),
      done,
    );
  }

  /** Zeros a range. `unmap`: its space may be freed. */
  zero(offset: number, length: number, unmap: boolean, done: DiskDone): void {
    const parts = unmap ? this.#zeroParts(offset, length) : [{ offset, length, isWhole: false }];
    const all = whenEach(parts.length, done);
    for (const part of parts)
      if (part.isWhole) this.#punch(part.offset, part.length, all);
      else this.#writeZeros(part.offset, part.length, all);
  }

  /** Makes durable what was written before. */
  flush(done: DiskDone): void {
    const { base } = this.#setup;
    const fd = this.#overlay?.fd ?? (base.kind === 'file' ? base.fd : null);
    if (fd === null || this.readOnly) {
      done(null);
      return;
    }
    if (this.#flushErrno !== 0) {
      done({ errno: this.#flushErrno, what: 'may have lost writes: the host failed to store them before' });
      return;
    }
    this.#io.sync(fd, (errno) => {
      if (errno !== 0) this.#flushErrno ||= errno;
      done(failureOf(this.#flushErrno, 'cannot be flushed, and may have lost writes'));
    });
  }

  /** Sets the bits of the blocks of an image file that may hold data; nothing without such a file. */
  findData(bits: MemoryRange, done: IoDone): void {
    const { base } = this.#setup;
    if (base.kind === 'file') this.#io.findData(base.fd, this.sizeBytes, bits, done);
    else done(0);
  }

  // Saves

  /** Begins to keep these blocks as they are. Called at the moment of a save, before the guest continues. */
  freeze(blocks: BitSet): void {
    this.#frozen.freeze(blocks);
  }

  /** The save has ended. */
  thaw(): void {
    this.#frozen.thaw();
  }

  /**
   * Reads blocks into `staging`, one behind the other, for a save: frozen blocks as they were at its moment. Bytes after
   * the end of the disk are left as they are.
   */
  readBlocks(blocks: Uint32Array, staging: MemoryHandle, done: DiskDone): void {
    if (this.#frozen.failure !== null) {
      done({ errno: EIO, what: `cannot keep blocks for the save: ${this.#frozen.failure}` });
      return;
    }
    const again = (): void => this.readBlocks(blocks, staging, done);
    const frozen: number[] = [];
    for (const block of blocks)
      if (this.#frozen.has(block)) {
        if (this.#locks.waitFor(block, block, again)) return;
        frozen.push(block);
      }
    const releases = frozen.map((block) => this.#locks.hold(block, block));
    const releaseAside = this.#frozen.retain();
    const finish: DiskDone = (failure) => {
      if (failure === null) for (const block of frozen) this.#frozen.release(block);
      releaseAside();
      for (const release of releases) release();
      done(failure);
    };
    const runs = runsOf(blocks, (block) => this.#frozen.placeOf(block) !== null);
    const all = whenEach(runs.length, finish);
    for (const { at, first, count, isSpecial } of runs) {
      const offset = first * BLOCK_BYTES;
      const length = Math.min(count * BLOCK_BYTES, this.sizeBytes - offset);
      const range = { memory: staging, offset: at * BLOCK_BYTES, length };
      if (isSpecial) this.#readAside(first, count, range, all);
      else this.read(offset, [range], all);
    }
  }

  #readAside(first: number, count: number, into: MemoryRange, done: DiskDone): void {
    const what = 'cannot read blocks kept for the save';
    const all = whenAll(count, (errno) => done(failureOf(errno, what)));
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (let i = 0; i < count; i++) {
      const place = this.#frozen.placeOf(first + i)!;
      const length = Math.min(BLOCK_BYTES, into.length - i * BLOCK_BYTES);
      const offset = into.offset + i * BLOCK_BYTES;
      if ('file' in place) this.#io.read(place.file, [{ memory: into.memory, offset, length }], all);
      else {
        readMemory(place.range.memory, place.range.offset, bytes);
        writeMemory(into.memory, offset, bytes.subarray(0, length));
        all(0);
      }
    }
  }

  // Reading

  /** The range as pieces of one layer each. */
  #pieces(offset: number, length: number): Piece[] {
    const overlay = this.#overlay;
    if (overlay === null) return [{ offset, length, isInOverlay: false }];
    const end = offset + length;
    const pieces: Piece[] = [];
    for (let at = offset; at < end; ) {
      const isInOverlay = overlay.has(Math.floor(at / BLOCK_BYTES));
      let next = (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES;
      while (next < end && overlay.has(next / BLOCK_BYTES) === isInOverlay) next += BLOCK_BYTES;
      next = Math.min(next, end);
      pieces.push({ offset: at, length: next - at, isInOverlay });
      at = next;
    }
    return pieces;
  }

  #readPiece({ offset, isInOverlay }: Piece, ranges: readonly MemoryRange[], done: DiskDone): void {
    const { base } = this.#setup;
    if (isInOverlay)
      this.#io.read({ fd: this.#overlay!.fd, offset }, ranges, (errno) =>
        done(failureOf(errno, `cannot read its overlay ${atBlock(offset)}`)),
      );
    else if (base.kind === 'file')
      this.#io.read({ fd: base.fd, offset }, ranges, (errno) =>
        done(failureOf(errno, `cannot read its image ${atBlock(offset)}`)),
      );
    else if (base.kind === 'zeros') this.#io.zeroMemory(ranges, (errno) => done(failureOf(errno, '')));
    else
      this.#fromStore(
        offset,
        base.name,
        (tried) => this.#io.readStore({ reader: base.reader, offset }, ranges, tried),
        done,
      );
  }

  #fromStore(offset: number, name: string, read: (tried: IoDone) => void, done: DiskDone): void {
    let attempts = 0;
    const tried: IoDone = (errno) => {
      if (errno !== 0 && ++attempts < STORE_ATTEMPTS) read(tried);
      else done(failureOf(errno, `cannot read snapshot ${name} ${atBlock(offset)}`));
    };
    read(tried);
  }

  // Writing

  /** Changes a range: prepares its blocks, lets `transfer` write at the place it is given, and accounts for the result. */
  #change(
    offset: number,
    length: number,
    needsSpace: boolean,
    transfer: (to: FilePlace, transferred: IoDone) => void,
    done: DiskDone,
  ): void {
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    const overlay = this.#overlay;
    const { base } = this.#setup;
    const fd = overlay?.fd ?? (base.kind === 'file' ? base.fd : -1);
    const attempt = (): void => {
      if (this.#locks.waitFor(first, last, attempt)) return;
      const frozen = this.#frozen.within(first, last);
      if (frozen.length > 0) {
        this.#setAside(frozen, attempt);
        return;
      }
      if (overlay !== null) {
        if (needsSpace && !overlay.isAllocated(first, last)) {
          overlay.allocate(first, last, (errno) => {
            if (errno === 0) attempt();
            else done(failureOf(errno, 'has no room for its overlay'));
          });
          return;
        }
        // Only the blocks at the ends can be in the range in part.
        const partial = [first, last].find(
          (block) => !overlay.has(block) && !this.#covers(block, offset, length),
        );
        if (partial !== undefined) {
          this.#copyUp(partial, (failure) => {
            if (failure) done(failure);
            else attempt();
          });
          return;
        }
      }
      // Until new blocks are whole, another request within them would lose its bytes or theirs.
      const release =
        overlay === null || overlay.hasAll(first, last) ? () => {} : this.#locks.hold(first, last);
      transfer({ fd, offset }, (errno) => {
        if (errno === 0) overlay?.present.addRange(first, last - first + 1);
        this.#written.addRange(first, last - first + 1);
        release();
        done(failureOf(errno, `cannot be written ${atBlock(offset)}`));
      });
    };
    attempt();
  }

  /** Whether a range has all bytes of a block, as far as the disk goes. */
  #covers(block: number, offset: number, length: number): boolean {
    const begin = block * BLOCK_BYTES;
    return offset <= begin && Math.min(begin + BLOCK_BYTES, this.sizeBytes) <= offset + length;
  }

  /** Copies a block from the base into the overlay. Its space is allocated. */
  #copyUp(block: number, done: DiskDone): void {
    const { base } = this.#setup;
    const overlay = this.#overlay!;
    const offset = block * BLOCK_BYTES;
    const length = Math.min(BLOCK_BYTES, this.sizeBytes - offset);
    const to = { fd: overlay.fd, offset };
    const release = this.#locks.hold(block, block);
    const copied: DiskDone = (failure) => {
      if (failure === null) overlay.present.addRange(block, 1);
      release();
      done(failure);
    };
    if (base.kind === 'file')
      this.#io.copy({ fd: base.fd, offset }, to, length, (errno) =>
        copied(failureOf(errno, `cannot copy its image ${atBlock(offset)}`)),
      );
    else if (base.kind === 'store')
      this.#fromStore(
        offset,
        base.name,
        (tried) => this.#io.copyFromStore({ reader: base.reader, offset }, to, length, tried),
        copied,
      );
    else
      this.#io.write(to, this.#zeroRanges(length), (errno) =>
        copied(failureOf(errno, `cannot be written ${atBlock(offset)}`)),
      );
  }

  /** Sets the old bytes of frozen blocks aside, then continues. */
  #setAside(blocks: readonly number[], then: () => void): void {
    const setting = this.#frozen.setAside(blocks);
    if (setting === null) {
      then();
      return;
    }
    const release = this.#locks.hold(blocks[0]!, blocks[blocks.length - 1]!);
    const all = whenEach(blocks.length, (failure) => {
      setting.end(failure && `${this.name} ${failure.what}`);
      release();
      then();
    });
    blocks.forEach((block, i) => {
      this.#copyAside(block, setting.places[i]!, all);
    });
  }

  #copyAside(block: number, place: AsidePlace, done: DiskDone): void {
    const offset = block * BLOCK_BYTES;
    const length = Math.min(BLOCK_BYTES, this.sizeBytes - offset);
    if ('range' in place) {
      this.read(offset, [{ ...place.range, length }], done);
      return;
    }
    const { base } = this.#setup;
    const failed = (errno: number): DiskFailure | null =>
      failureOf(errno, `cannot keep block ${block} for the save`);
    const isInOverlay = this.#overlay?.has(block) ?? false;
    if (isInOverlay || base.kind === 'file') {
      const fd = isInOverlay ? this.#overlay!.fd : (base as { fd: number }).fd;
      this.#io.copy({ fd, offset }, place.file, length, (errno) => done(failed(errno)));
    } else if (base.kind === 'store')
      this.#fromStore(
        offset,
        base.name,
        (tried) => this.#io.copyFromStore({ reader: base.reader, offset }, place.file, length, tried),
        done,
      );
    else this.#io.write(place.file, this.#zeroRanges(length), (errno) => done(failed(errno)));
  }

  // Zeroing

  /** Whole blocks in the middle, which are punched, and the parts before and after them, which are written. */
  #zeroParts(offset: number, length: number): { offset: number; length: number; isWhole: boolean }[] {
    const end = offset + length;
    const from = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const to = end === this.sizeBytes ? end : Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES;
    if (from >= to) return [{ offset, length, isWhole: false }];
    return [
      { offset, length: from - offset, isWhole: false },
      { offset: from, length: to - from, isWhole: true },
      { offset: to, length: end - to, isWhole: false },
    ].filter((part) => part.length > 0);
  }

  #punch(offset: number, length: number, done: DiskDone): void {
    this.#change(
      offset,
      length,
      false,
      (to, transferred) => this.#punchAt(to, length, transferred),
      (failure) => {
        // A file system or device that cannot punch can still be written.
        if (failure?.errno === EOPNOTSUPP) this.#writeZeros(offset, length, done);
        else done(failure);
      },
    );
  }

  #punchAt(to: FilePlace, length: number, transferred: IoDone): void {
    const overlay = this.#overlay;
    if (overlay === null) this.#io.punch(to, length, transferred);
    else
      overlay.punch(to.offset / BLOCK_BYTES, Math.ceil((to.offset + length) / BLOCK_BYTES) - 1, transferred);
  }

  #writeZeros(offset: number, length: number, done: DiskDone): void {
    // In parts that the memory of zeros can supply with few ranges.
    const step = this.#zeros.sizeBytes;
    const all = whenEach(Math.ceil(length / step), done);
    for (let at = 0; at < length; at += step)
      this.write(offset + at, this.#zeroRanges(Math.min(step, length - at)), all);
  }

  #zeroRanges(length: number): MemoryRange[] {
    return [{ memory: this.#zeros.memory, offset: 0, length }];
  }
}

interface Run {
  /** Index of the first block in the list. */
  readonly at: number;
  readonly first: number;
  readonly count: number;
  readonly isSpecial: boolean;
}

/** Ascending blocks as runs of neighbours that are alike. */
function runsOf(blocks: Uint32Array, isSpecial: (block: number) => boolean): Run[] {
  const runs: Run[] = [];
  for (let at = 0; at < blocks.length; ) {
    const first = blocks[at]!;
    const special = isSpecial(first);
    let count = 1;
    while (
      at + count < blocks.length &&
      blocks[at + count] === first + count &&
      isSpecial(first + count) === special
    )
      count++;
    runs.push({ at, first, count, isSpecial: special });
    at += count;
  }
  return runs;
}

const lengthOf = (ranges: readonly MemoryRange[]): number =>
  ranges.reduce((sum, { length }) => sum + length, 0);

const atBlock = (offset: number): string => `at block ${Math.floor(offset / BLOCK_BYTES)}`;

const failureOf = (errno: number, what: string): DiskFailure | null => (errno === 0 ? null : { errno, what });

/** Calls `done` when `count` parts are done, with the first failure; at once for no part. */
function whenEach(count: number, done: DiskDone): DiskDone {
  if (count === 0) done(null);
  let left = count;
  let first: DiskFailure | null = null;
  return (failure) => {
    first ??= failure;
    if (--left === 0) done(first);
  };
}
