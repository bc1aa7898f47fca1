/**
 * What a disk needs of an I/O engine: operations on files, stored regions and memories, which call back when they are
 * done. NativeBlockIo implements it; tests use a fake that reorders operations and lets them fail.
 *
 * Thread: the device thread. No call blocks, and no callback comes from within a call.
 *
 * Invariants:
 * - Each operation calls back once, with 0 or a positive errno.
 * - Operations complete in any order.
 */
import type { MemoryHandle } from '../../native/memory.js';

/** Bytes of a memory. */
export interface MemoryRange {
  readonly memory: MemoryHandle;
  readonly offset: number;
  readonly length: number;
}

/** `errno` is 0 if the operation succeeded. */
export type IoDone = (errno: number) => void;

/** A place in a file. */
export interface FilePlace {
  readonly fd: number;
  readonly offset: number;
}

/** A place in a region of a snapshot; `reader` is its native reader (src/native/region-reader.ts). */
export interface StorePlace {
  readonly reader: number;
  readonly offset: number;
}

export interface BlockIo {
  /** Bytes beyond the end of the file are zeros. */
  read(from: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void;
  /** After a failure any part may be written. */
  write(to: FilePlace, ranges: readonly MemoryRange[], done: IoDone): void;
  /** Verified. */
  readStore(from: StorePlace, ranges: readonly MemoryRange[], done: IoDone): void;
  zeroMemory(ranges: readonly MemoryRange[], done: IoDone): void;
  copy(from: FilePlace, to: FilePlace, length: number, done: IoDone): void;
  /** Verified. */
  copyFromStore(from: StorePlace, to: FilePlace, length: number, done: IoDone): void;
  sync(fd: number, done: IoDone): void;
  /** Allocates space without changing data or size. */
  allocate(at: FilePlace, length: number, done: IoDone): void;
  /** Sets the bit of each block of a file's first `length` bytes that may hold data. */
  findData(fd: number, length: number, bits: MemoryRange, done: IoDone): void;
  /** Zeros a range and frees its space. */
  punch(at: FilePlace, length: number, done: IoDone): void;
}

/** Cuts ranges into consecutive parts: each call of the function that it returns gives the next `length` bytes. */
export function rangeCutter(ranges: readonly MemoryRange[]): (length: number) => MemoryRange[] {
  let index = 0;
  let used = 0;
  return (length) => {
    const part: MemoryRange[] = [];
    for (let left = length; left > 0 && index < ranges.length; ) {
      const { memory, offset, length: available } = ranges[index]!;
      const taken = Math.min(available - used, left);
      part.push({ memory, offset: offset + used, length: taken });
      left -= taken;
      used += taken;
      if (used === available) {
        index++;
        used = 0;
      }
    }
    return part;
  };
}

/** Calls `done` when `count` operations have called back, with the first errno. `count` is at least 1. */
export function whenAll(count: number, done: IoDone): IoDone {
  let left = count;
  let failure = 0;
  return (errno) => {
    if (failure === 0) failure = errno;
    if (--left === 0) done(failure);
  };
}
