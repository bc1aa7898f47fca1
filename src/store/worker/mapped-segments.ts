/**
 * The mapped segments of the store that this thread saved to last. While the store is open, the next save maps only new
 * segments.
 *
 * Invariant: a segment is unmapped only when no save of this thread can look into it.
 */
import { unmapFile } from '../../native/mapped-file.js';
import type { Segment } from '../segment/fingerprints.js';
import { mapSegment, type SegmentRow } from '../segment/segment-file.js';

let mapped: { dir: string; segments: ReadonlyMap<number, Segment> } = { dir: '', segments: new Map() };

/**
 * The segments by number. One that cannot be mapped is left out. `inUse`: a save still uses those of an earlier call.
 */
export function mapSegments(
  dir: string,
  rows: readonly SegmentRow[],
  inUse: boolean,
): ReadonlyMap<number, Segment> {
  const known = mapped.dir === dir ? mapped.segments : new Map<number, Segment>();
  const segments = new Map<number, Segment>();
  for (const row of rows) {
    const segment = known.get(row.number) ?? mapSegment(dir, row);
    if (segment) segments.set(row.number, segment);
  }
  // If a save still uses the old ones, they are unmapped when they are garbage.
  if (!inUse) {
    const kept = new Set(segments.values());
    for (const segment of mapped.segments.values()) if (!kept.has(segment)) unmapFile(segment.words);
  }
  mapped = { dir, segments };
  return segments;
}

/** Unmaps all segments, so that the space of deleted ones is free. Only when no save looks into them. */
export function unmapSegments(): void {
  for (const segment of mapped.segments.values()) unmapFile(segment.words);
  mapped = { dir: '', segments: new Map() };
}
