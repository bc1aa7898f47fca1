/** Rows of a list of snapshots, for tests of what is chosen among them. */
import type { SnapshotSummary } from '../../../src/page-stream.js';

/** A snapshot whose ID is the number `n`, made at `createdAt` (local time unless it says). */
export const summary = (
  n: number,
  createdAt: string | Date,
  over: Partial<SnapshotSummary> = {},
): SnapshotSummary => ({
  id: n.toString(16).padStart(32, '0'),
  tags: [],
  kind: 'machine',
  vm: 'web',
  parent: null,
  createdAt: new Date(createdAt).toISOString(),
  memoryBytes: 0,
  diskBytes: 0,
  storedBytes: 0,
  labels: {},
  pauseMs: null,
  ...over,
});
