/** What gc has freed, for the verbs that run it. */
import { formatBytes, formatCount } from '../format.js';
import type { GcResult } from '../store/gc/gc.js';

/** `12 MiB (3,000 chunks)`. Files that no index lists are deleted whole; nobody knows their chunks. */
export const freedText = ({
  freedBytes,
  removedChunks,
}: Pick<GcResult, 'freedBytes' | 'removedChunks'>): string =>
  `${formatBytes(freedBytes)}${removedChunks === 0 ? '' : ` (${formatCount(removedChunks, 'chunk')})`}`;
