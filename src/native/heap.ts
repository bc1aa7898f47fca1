/** The heap of the C library, from which Node and SQLite allocate. */
import { addon } from './addon.js';

interface HeapFunctions {
  trimHeap(): void;
}

/** Gives free memory back to the kernel, which takes a few milliseconds (malloc_trim(3)). */
export const trimHeap = (): void => addon<HeapFunctions>().trimHeap();
