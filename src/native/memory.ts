/**
 * Guest RAM: a sparse memfd of whole pages behind an integer handle, which any Worker of the process may use.
 *
 * Invariant: bytes are copied in and out; no view of the mapping reaches JavaScript.
 */
import { addon } from './addon.js';

interface MemoryFunctions {
  memoryCreate(sizeBytes: number): number;
  memoryClose(handle: number): void;
  memoryRead(handle: number, offset: number, into: Uint8Array): void;
  memoryWrite(handle: number, offset: number, bytes: Uint8Array): void;
  memoryLoad16(handle: number, offset: number): number;
  memoryStore16(handle: number, offset: number, value: number): void;
  memoryFillRandom(handle: number, offset: number, length: number): void;
  memoryDiscard(handle: number, offset: number, length: number): boolean;
  memoryCopyPages(handle: number, pages: Uint32Array, into: Uint8Array): void;
  memoryWritePages(handle: number, pages: Uint32Array, bytes: Uint8Array): void;
  memoryDataRanges(handle: number): number[];
}

const native = (): MemoryFunctions => addon();

/** Names a memory in every Worker of this process. */
export type MemoryHandle = number;

/** Creates a memory of `sizeBytes`, a multiple of 4096. All of it is zero and no page is allocated. */
export const createMemory = (sizeBytes: number): MemoryHandle => native().memoryCreate(sizeBytes);

/** Drops the handle. The memory is freed with its last user, such as a machine that has it in a slot. */
export const closeMemory = (handle: MemoryHandle): void => native().memoryClose(handle);

/** Copies bytes out. Reading a hole allocates it: see {@link dataRanges}. */
export const readMemory = (handle: MemoryHandle, offset: number, into: Uint8Array): void =>
  native().memoryRead(handle, offset, into);

export const writeMemory = (handle: MemoryHandle, offset: number, bytes: Uint8Array): void =>
  native().memoryWrite(handle, offset, bytes);

/** Reads 16 bits at an even offset at once, ordered before all later accesses. */
export const load16 = (handle: MemoryHandle, offset: number): number => native().memoryLoad16(handle, offset);

/** Writes 16 bits at an even offset at once: after all earlier accesses, and before all later ones (a full fence). */
export const store16 = (handle: MemoryHandle, offset: number, value: number): void =>
  native().memoryStore16(handle, offset, value);

/** Fills at most 64 KiB with random bytes of the host (getrandom(2)). */
export const fillRandom = (handle: MemoryHandle, offset: number, length: number): void =>
  native().memoryFillRandom(handle, offset, length);

/**
 * Gives whole pages back to the host. They read as zeros. False: nothing was done, because a fill would bring them back.
 */
export const discardPages = (handle: MemoryHandle, offset: number, length: number): boolean =>
  native().memoryDiscard(handle, offset, length);

/** Copies the page `pages[i]` to `into[i × 4096]`. */
export const copyPages = (handle: MemoryHandle, pages: Uint32Array, into: Uint8Array): void =>
  native().memoryCopyPages(handle, pages, into);

/** Copies `bytes[i × 4096]` to the page `pages[i]`. */
export const writePages = (handle: MemoryHandle, pages: Uint32Array, bytes: Uint8Array): void =>
  native().memoryWritePages(handle, pages, bytes);

/** The ranges that are not holes, ascending, in bytes (lseek(2), SEEK_DATA). */
export function dataRanges(handle: MemoryHandle): { offset: number; length: number }[] {
  const flat = native().memoryDataRanges(handle);
  const ranges = [];
  for (let i = 0; i + 1 < flat.length; i += 2) ranges.push({ offset: flat[i]!, length: flat[i + 1]! });
  return ranges;
}
