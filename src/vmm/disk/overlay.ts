/**
 * The blocks of a disk that were written since the machine was started or restored: a sparse file without a name, and
 * the set of blocks that it has.
 *
 * Thread: the device thread. The set is shared with the main thread, which reads it for a save.
 *
 * Invariants:
 * - Space is allocated before the first write to it, so a write into the overlay does not fail on a full disk.
 * - An allocation leaves room for a save.
 * - A block of the set is whole in the file. A block that was discarded is in the set, and a hole of the file.
 */
import { statfsSync } from 'node:fs';
import { constants } from 'node:os';
import { BitSet } from '../../bit-set.js';
import { SharedBits } from '../memory/shared-bits.js';
import { type BlockIo, type IoDone, whenAll } from './block-io.js';
import { BLOCK_BYTES, type OverlaySetup } from './disk-setup.js';

const { EIO, ENOSPC, EOPNOTSUPP } = constants.errno;

/** How much is allocated at once: 1 MiB. */
export const EXTENT_BLOCKS = 256;

/** Free space of the file system that an open file is on, for users without privileges. */
function freeBytesAt(fd: number): number {
  const { bavail, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  return bavail * bsize;
}

export class Overlay {
  readonly fd: number;
  readonly present: SharedBits;
  readonly #allocated: BitSet;
  readonly #io: BlockIo;
  readonly #reserveBytes: number;
  readonly #freeBytes: (fd: number) => number;
  /** Counts beginnings and ends of punches. */
  #punches = 0;

  /** `freeBytes`: for tests. */
  constructor(setup: OverlaySetup, blocks: number, io: BlockIo, freeBytes = freeBytesAt) {
    this.fd = setup.fd;
    this.present = new SharedBits(setup.present);
    this.#reserveBytes = setup.reserveBytes;
    this.#allocated = new BitSet(Math.ceil(blocks / EXTENT_BLOCKS));
    this.#io = io;
    this.#freeBytes = freeBytes;
  }

  has(block: number): boolean {
    return this.present.has(block);
  }

  hasAll(first: number, last: number): boolean {
    for (let block = first; block <= last; block++) if (!this.present.has(block)) return false;
    return true;
  }

  /** Whether the space of all these blocks is allocated. */
  isAllocated(first: number, last: number): boolean {
    for (let extent = extentOf(first); extent <= extentOf(last); extent++)
      if (!this.#allocated.has(extent)) return false;
    return true;
  }

  /** 0, or why this much more space cannot be taken. */
  #checkRoom(bytes: number): number {
    try {
      return this.#freeBytes(this.fd) < bytes + this.#reserveBytes ? ENOSPC : 0;
    } catch (error) {
      return Math.abs((error as NodeJS.ErrnoException).errno ?? EIO);
    }
  }

  /** Allocates the space of these blocks. Fails, at once, with ENOSPC before it takes what a save needs. */
  allocate(first: number, last: number, done: IoDone): void {
    const missing: number[] = [];
    for (let extent = extentOf(first); extent <= extentOf(last); extent++)
      if (!this.#allocated.has(extent)) missing.push(extent);
    const extentBytes = EXTENT_BLOCKS * BLOCK_BYTES;
    const errno = this.#checkRoom(missing.length * extentBytes);
    if (errno !== 0) {
      done(errno);
      return;
    }
    const all = whenAll(missing.length, done);
    const punches = this.#punches;
    for (const extent of missing)
      this.#io.allocate({ fd: this.fd, offset: extent * extentBytes }, extentBytes, (errno) => {
        // A file system that cannot allocate ahead reports a full disk with the write.
        const failure = errno === EOPNOTSUPP ? 0 : errno;
        // What was punched meanwhile may be missing again.
        if (failure === 0 && punches === this.#punches) this.#allocated.add(extent);
        all(failure);
      });
  }

  /** Zeros whole blocks and frees their space. The caller adds them to {@link present} afterwards. */
  punch(first: number, last: number, done: IoDone): void {
    const forget = (): void => {
      this.#punches++;
      this.#allocated.removeRange(extentOf(first), extentOf(last) - extentOf(first) + 1);
    };
    forget();
    const at = { fd: this.fd, offset: first * BLOCK_BYTES };
    this.#io.punch(at, (last - first + 1) * BLOCK_BYTES, (errno) => {
      forget();
      done(errno);
    });
  }
}

const extentOf = (block: number): number => Math.floor(block / EXTENT_BLOCKS);
