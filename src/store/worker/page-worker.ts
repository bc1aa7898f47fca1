/**
 * The entry of a page Worker: does the jobs of page-jobs.ts one after the other, each synchronously. Holds no lock
 * and no database; what it keeps between jobs belongs to a session that its asker ends.
 */

import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { BitSet } from '../../bit-set.js';
import { LivesnapError, SystemError } from '../../errors.js';
import { unmapFile } from '../../native/mapped-file.js';
import { writePages } from '../../native/memory.js';
import { type PageOps, pageOps, withFingerprintBits } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, LostChunkError } from '../disk/damage.js';
import { sharePatience } from '../disk/waits.js';
import { FRAME_BYTES, type FrameEntry, FrameFlag, type PackName, SHA256_BYTES } from '../pack/pack-format.js';
import { PackReader, PackSet } from '../pack/pack-reader.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';
import type { Segment } from '../segment/fingerprints.js';
import { mapSegment, type SegmentRow } from '../segment/segment-file.js';
import { readSegment, verifySegment } from '../segment/segment-scan.js';
import { type WrittenSegment, writeSegment } from '../segment/segment-writer.js';
import { ENTRY_WORDS, mergeEntries, sortEntries } from '../segment/sorted-entries.js';
import { Packer } from './packer.js';
import { PageBatch } from './page-batch.js';
import type {
  Answer,
  Ask,
  JobName,
  PackList,
  PackProblem,
  PackVerdict,
  PlainError,
  Request,
} from './page-jobs.js';

sharePatience(workerData);

const packers = new Map<number, Packer>();
const readers = new Map<number, { ops: PageOps; packs: PackSet }>();
/** A batch's views are made once; batches are reused. */
const batches = new WeakMap<SharedArrayBuffer, PageBatch>();

function batchOf(shared: SharedArrayBuffer): PageBatch {
  let batch = batches.get(shared);
  if (!batch) {
    batch = new PageBatch(shared);
    batches.set(shared, batch);
  }
  return batch;
}

function generationsOf(packs: PackList): Map<number, number> {
  const generations = new Map<number, number>();
  for (let i = 0; i < packs.length; i += 2) generations.set(packs[i]!, packs[i + 1]!);
  return generations;
}

/** The segments of the store that was worked on last, mapped; one that cannot be had is done without. */
let mapped: { dir: string; segments: Map<number, Segment> } = { dir: '', segments: new Map() };

function segmentsOf(dir: string, rows: readonly SegmentRow[]): ReadonlyMap<number, Segment> {
  const before = mapped.dir === dir ? mapped.segments : new Map<number, Segment>();
  const segments = new Map<number, Segment>();
  for (const row of rows) {
    const segment = before.get(row.number) ?? mapSegment(dir, row);
    if (segment) segments.set(row.number, segment);
  }
  const isMapped = new Set(segments.values());
  // What another session still looks into goes with that, whenever it is collected.
  if (packers.size === 0)
    for (const segment of mapped.segments.values()) if (!isMapped.has(segment)) unmapFile(segment.words);
  mapped = { dir, segments };
  return segments;
}

/** Locks of segments that were written and that the index does not list yet. */
const segmentLocks = new Map<number, number>();

function lockedSegment(written: WrittenSegment | null): SegmentRow | null {
  if (written) segmentLocks.set(written.row.number, written.fd);
  return written?.row ?? null;
}

/** The entries of a pack, sorted. */
function entriesOf(reader: PackReader): Uint32Array {
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

function entriesOfPacks(dir: string, packs: PackList): Uint32Array[] {
  const entries: Uint32Array[] = [];
  const set = new PackSet(pageOps, dir, (number) => generations.get(number));
  const generations = generationsOf(packs);
  for (const number of generations.keys()) {
    try {
      entries.push(entriesOf(set.pack(number)));
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
    } finally {
      set.close();
    }
  }
  return entries;
}

function sessionOf<T>(sessions: Map<number, T>, session: number): T {
  const found = sessions.get(session);
  if (!found) throw new Error(`there is no session ${session}`);
  return found;
}

/** Fills the batch in the order of the packs, so that each frame is unpacked once. */
function readBatch({ ops, packs }: { ops: PageOps; packs: PackSet }, batch: PageBatch, count: number): void {
  const { pages, places, fingerprintWords } = batch;
  const order = new Uint32Array(count);
  let sorted = true;
  for (let i = 0; i < count; i++) {
    order[i] = i;
    if (i > 0) {
      const packStep = places[2 * i]! - places[2 * i - 2]!;
      if (packStep < 0 || (packStep === 0 && places[2 * i + 1]! < places[2 * i - 1]!)) sorted = false;
    }
  }
  if (!sorted)
    order.sort((a, b) => places[2 * a]! - places[2 * b]! || places[2 * a + 1]! - places[2 * b + 1]!);
  for (const i of order) {
    const { bytes, offset } = packs.chunk(places[2 * i]!, places[2 * i + 1]!);
    pages.set(bytes.subarray(offset, offset + PAGE_BYTES), i * PAGE_BYTES);
  }
  const hashes = new Uint32Array(count * 2);
  ops.hashPages(pages, count, new Uint8Array(hashes.buffer));
  for (let i = 0; i < count; i++) {
    if (hashes[2 * i] === fingerprintWords[2 * i] && hashes[2 * i + 1] === fingerprintWords[2 * i + 1])
      continue;
    const pack = packs.pack(places[2 * i]!);
    const frame = pack.frames.at(pack.frames.indexOf(pack.positionOf(places[2 * i + 1]!)));
    throw new DamageError(
      pack.file,
      frame.offset,
      `chunk ${places[2 * i + 1]} is not the page that was saved`,
    );
  }
}

/** Errors of the memory that is filled, which are not the store's. */
const ofMemory = new WeakSet<object>();

function fillMemory({ memory, pages }: { memory: number; pages: Uint32Array }, bytes: Uint8Array): void {
  try {
    writePages(memory, pages, bytes);
  } catch (error) {
    ofMemory.add(error as object);
    throw error;
  }
}

function verifyPack(dir: string, pack: PackName, ops: PageOps, readData: boolean): PackVerdict {
  const problems: PackProblem[] = [];
  let reader: PackReader;
  try {
    reader = new PackReader(ops, dir, pack);
  } catch (error) {
    if (!(error instanceof DamageError)) throw error;
    return {
      problems: [{ file: error.file, offset: error.offset, message: error.why, chunks: null }],
      listed: null,
    };
  }
  try {
    const { digests, fingerprints } = reader.readIdentities();
    if (readData) verifyData(reader, ops, digests, fingerprints, problems);
    else problems.push(...lostFrames(reader));
  } catch (error) {
    if (!(error instanceof DamageError)) throw error;
    problems.push({ file: error.file, offset: error.offset, message: error.why, chunks: [] });
  } finally {
    reader.close();
  }
  return { problems, listed: { chunks: reader.numbers.length, sizeBytes: reader.sizeBytes } };
}

/** What an earlier repair found lost. */
function lostFrames(reader: PackReader): PackProblem[] {
  return [...reader.frames]
    .filter(({ flags }) => (flags & FrameFlag.lost) !== 0)
    .map(({ offset, first, chunks }) => ({
      file: reader.file,
      offset,
      message: new LostChunkError(reader.file, offset).why,
      chunks: [...reader.numbers.subarray(first, first + chunks)],
    }));
}

function verifyData(
  reader: PackReader,
  ops: PageOps,
  digests: Buffer,
  fingerprints: Buffer,
  problems: PackProblem[],
): void {
  const raw = new Uint8Array(FRAME_BYTES);
  const hashes = Buffer.alloc(16 * 8);
  [...reader.frames].forEach((frame, index) => {
    const lost = (positions: number[], message: string): void => {
      problems.push({
        file: reader.file,
        offset: frame.offset,
        message,
        chunks: positions.map((position) => reader.numbers[position]!),
      });
    };
    try {
      reader.readFrame(index, raw);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      lost(positionsOf(frame), error.why);
      return;
    }
    ops.hashPages(raw, frame.chunks, hashes);
    const wrong = positionsOf(frame).filter((position, i) => {
      const page = raw.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      const digest = createHash('sha256').update(page).digest();
      return (
        Buffer.compare(digest, digests.subarray(position * SHA256_BYTES, (position + 1) * SHA256_BYTES)) !==
          0 || !ops.equal(hashes, i * 8, fingerprints, position * 8, 8)
      );
    });
    if (wrong.length > 0) lost(wrong, 'chunks are not those that the pack lists');
  });
}

const positionsOf = (frame: FrameEntry): number[] =>
  Array.from({ length: frame.chunks }, (_, i) => frame.first + i);

function rewritePack({ dir, pack, live, dryRun }: Ask<'rewritePack'>): SealedPack {
  const reader = new PackReader(pageOps, dir, pack);
  let writer: PackWriter | null = null;
  try {
    if (reader.numbers.filter((number) => isSet(live, number)).length !== BitSet.from(live).count())
      throw new DamageError(reader.file, null, 'a snapshot refers to a chunk that the pack does not have');
    const { fingerprints, digests } = reader.readIdentities();
    writer = new PackWriter(pageOps, dir, pack.number, pack.generation + 1, dryRun);
    const raw = new Uint8Array(FRAME_BYTES);
    let index = -1;
    for (const frame of reader.frames) {
      index++;
      const kept = positionsOf(frame).filter((position) => isSet(live, reader.numbers[position]!));
      if (kept.length === 0) continue;
      const isLost = (frame.flags & FrameFlag.lost) !== 0;
      const isManifest = (frame.flags & FrameFlag.manifest) !== 0;
      if (!isLost) reader.readFrame(index, raw);
      for (const position of kept) {
        const number = reader.numbers[position]!;
        const fingerprint = fingerprints.subarray(position * 8, position * 8 + 8);
        const digest = digests.subarray(position * SHA256_BYTES, (position + 1) * SHA256_BYTES);
        if (isLost) writer.appendLost(number, fingerprint, digest, isManifest);
        else {
          const offset = (position - frame.first) * PAGE_BYTES;
          writer.appendNumbered(raw, offset, fingerprint, isManifest, number, digest);
        }
      }
    }
    const sealed = writer.seal();
    writer.close();
    return sealed;
  } catch (error) {
    writer?.abandon();
    throw error;
  } finally {
    reader.close();
  }
}

const NONE = new Uint8Array(0);
const isSet = (bits: Uint8Array, i: number): boolean => ((bits[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0;

const jobs: { [N in JobName]: (ask: Ask<N>) => Answer<N> } = {
  packBegin({ session, dir, fingerprintBits, packs, segments }) {
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    const found = segmentsOf(dir, segments);
    packers.set(session, new Packer(ops, dir, generationsOf(packs), [...found.values()]));
    return { missing: segments.flatMap(({ number }) => (found.has(number) ? [] : [number])) };
  },
  packBatch({ session, batch, count, manifest, newNumbers }) {
    const packer = sessionOf(packers, session);
    packer.addPackNumbers(newNumbers);
    packer.deduplicate(batchOf(batch), count, manifest);
    return { spareNumbers: packer.spareNumbers, uncommitted: packer.uncommitted };
  },
  packLocate: ({ session, fingerprints, digests }) => ({
    places: sessionOf(packers, session).locate(fingerprints, digests),
  }),
  packReceived({ session, batch, count, digest, newNumbers }) {
    const packer = sessionOf(packers, session);
    packer.addPackNumbers(newNumbers);
    packer.storeReceived(batchOf(batch), count, digest);
    return { spareNumbers: packer.spareNumbers };
  },
  packCheckpoint: ({ session }) => sessionOf(packers, session).checkpoint(),
  packKeep({ session, findable }) {
    sessionOf(packers, session).keep(findable);
    return null;
  },
  packSeal: ({ session }) => sessionOf(packers, session).seal(),
  packEnd({ session }) {
    const packer = packers.get(session);
    packers.delete(session);
    packer?.end();
    return null;
  },
  packAbort({ session }) {
    const packer = packers.get(session);
    packers.delete(session);
    packer?.abort();
    return null;
  },
  readBegin({ session, dir, fingerprintBits, packs }) {
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    const generations = generationsOf(packs);
    readers.set(session, { ops, packs: new PackSet(ops, dir, (number) => generations.get(number)) });
    return null;
  },
  readBatch({ session, batch, count, into }) {
    const read = batchOf(batch);
    readBatch(sessionOf(readers, session), read, count);
    if (into) fillMemory(into, read.pages);
    return null;
  },
  readEnd({ session }) {
    readers.get(session)?.packs.close();
    readers.delete(session);
    return null;
  },
  mergeSegments({ dir, from, into, gone }) {
    const changed = new Map(gone.map(({ pack, live }) => [pack, live ?? NONE]));
    const isThere = (pack: number, chunk: number): boolean => {
      const live = changed.get(pack);
      return live === undefined || isSet(live, chunk);
    };
    const sources = from.map((row) => readSegment(pageOps, dir, row));
    const most = from.reduce((total, { entries }) => total + entries, 0);
    return lockedSegment(writeSegment(pageOps, dir, into, mergeEntries(sources, isThere), most));
  },
  buildSegment({ dir, packs, into }) {
    const sources = entriesOfPacks(dir, packs).map((words) => [words]);
    const most = sources.reduce((total, [words]) => total + words!.length / ENTRY_WORDS, 0);
    return lockedSegment(writeSegment(pageOps, dir, into, mergeEntries(sources), most));
  },
  segmentEnd({ into }) {
    const fd = segmentLocks.get(into);
    if (fd !== undefined) closeSync(fd);
    segmentLocks.delete(into);
    return null;
  },
  verifySegment({ dir, row }) {
    const damage = verifySegment(pageOps, dir, row);
    return damage && { file: damage.file, offset: damage.offset, message: damage.why, chunks: [] };
  },
  verifyPack: ({ dir, pack, fingerprintBits, readData }) =>
    verifyPack(dir, pack, withFingerprintBits(pageOps, fingerprintBits), readData),
  rewritePack,
};

function plain(thrown: unknown): PlainError {
  const error = thrown as Error & NodeJS.ErrnoException & { dest?: string };
  const { message, stack, code, syscall, path, dest } = error;
  if (error instanceof DamageError)
    return { message, code, damage: { file: error.file, offset: error.offset, why: error.why } };
  if (error instanceof SystemError) {
    const { errno, errnoName } = error;
    return { message, native: { syscall: error.syscall, errno, errnoName }, isOfStore: !ofMemory.has(error) };
  }
  const hint = error instanceof LivesnapError ? error.hint : undefined;
  return { message, stack, code, hint, errno: error.errno, syscall, path, dest };
}

parentPort!.on('message', ({ id, name, ask }: Request) => {
  try {
    parentPort!.postMessage({ id, answer: jobs[name](ask as never) });
  } catch (error) {
    parentPort!.postMessage({ id, error: plain(error) });
  }
});
