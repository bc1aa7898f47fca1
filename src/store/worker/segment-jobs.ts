/**
 * Writes segments, in a page Worker: merged from older segments, or built from packs.
 *
 * Invariant: a new segment stays locked until the index lists it (`segmentEnd`), so that gc does not delete it.
 */
import { closeSync } from 'node:fs';
import { pageOps } from '../../native/pages.js';
import { DamageError } from '../disk/damage.js';
import type { PackReader } from '../pack/pack-reader.js';
import { PackSet } from '../pack/pack-set.js';
import type { SegmentRow } from '../segment/segment-file.js';
import { readSegment } from '../segment/segment-scan.js';
import { type WrittenSegment, writeSegment } from '../segment/segment-writer.js';
import { ENTRY_WORDS, mergeEntries, sortEntries } from '../segment/sorted-entries.js';
import { generationsOf } from './pack-list.js';
import type { JobInput } from './page-jobs.js';
import { hasBit } from './rewrite-pack.js';

const NO_CHUNKS = new Uint8Array(0);

/** Descriptors of segments that the index does not list yet, by number. They hold the locks. */
const locks = new Map<number, number>();

/** Errors: DAMAGED. */
export function mergeSegments({ dir, from, into, gone }: JobInput<'mergeSegments'>): SegmentRow | null {
  const liveOf = new Map(gone.map(({ pack, live }) => [pack, live ?? NO_CHUNKS]));
  const isLive = (pack: number, chunk: number): boolean => {
    const live = liveOf.get(pack);
    return live === undefined || hasBit(live, chunk);
  };
  const sources = from.map((row) => readSegment(pageOps, dir, row));
  const maxEntries = from.reduce((total, { entries }) => total + entries, 0);
  return keepLocked(writeSegment(pageOps, dir, into, mergeEntries(sources, isLive), maxEntries));
}

export function buildSegment({ dir, packs, into }: JobInput<'buildSegment'>): SegmentRow | null {
  const sources: Uint32Array[][] = [];
  let maxEntries = 0;
  const generations = generationsOf(packs);
  const set = new PackSet(pageOps, dir, (number) => generations.get(number));
  for (const number of generations.keys()) {
    try {
      const entries = sortedEntries(set.pack(number));
      maxEntries += entries.length / ENTRY_WORDS;
      sources.push([entries]);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
    } finally {
      set.close(); // one open pack at a time
    }
  }
  return keepLocked(writeSegment(pageOps, dir, into, mergeEntries(sources), maxEntries));
}

export function releaseSegment({ into }: JobInput<'segmentEnd'>): null {
  const fd = locks.get(into);
  if (fd !== undefined) closeSync(fd);
  locks.delete(into);
  return null;
}

function keepLocked(written: WrittenSegment | null): SegmentRow | null {
  if (written) locks.set(written.row.number, written.fd);
  return written?.row ?? null;
}

function sortedEntries(reader: PackReader): Uint32Array {
  const { fingerprints } = reader.readIdentities();
  const words = new Uint32Array(reader.numbers.length * ENTRY_WORDS);
  reader.numbers.forEach((number, i) => {
    words[4 * i] = fingerprints.readUInt32LE(8 * i);
    words[4 * i + 1] = fingerprints.readUInt32LE(8 * i + 4);
    words[4 * i + 2] = reader.pack.number;
    words[4 * i + 3] = number;
  });
  return sortEntries(words);
}
