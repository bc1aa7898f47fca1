/** Memory that this process keeps and does not use. */
import { addon } from './addon.js';

interface HeapFunctions {
  trimHeap(): void;
  discardBytes(bytes: Uint8Array): void;
}

/**
 * Gives free memory of the C library's heap, from which Node and SQLite allocate, back to the kernel (malloc_trim(3)). It
 * takes a few milliseconds.
 */
export const trimHeap = (): void => addon<HeapFunctions>().trimHeap();

/**
 * Gives the memory of a buffer back to the kernel, whose content is then undefined: whole pages become zero. `bytes` is
 * memory that the process allocated, not a mapped file.
 */
export const discardBytes = (bytes: Uint8Array): void => addon<HeapFunctions>().discardBytes(bytes);
