/**
 * Runs the jobs of page-jobs.ts, one at a time, each synchronously: in a page Worker, or in the thread that saves.
 *
 * Invariants:
 * - A job has no database and never takes the store's lock.
 * - What is kept between jobs belongs to a session, which the caller ends.
 */
import { type PageOps, pageOps, withFingerprintBits } from '../../native/pages.js';
import { PackSet } from '../pack/pack-set.js';
import { verifySegment } from '../segment/segment-scan.js';
import { mapSegments, unmapSegments } from './mapped-segments.js';
import { generationsOf } from './pack-list.js';
import { Packer } from './packer.js';
import { PageBatch } from './page-batch.js';
import type { JobInput, JobName, JobOutput, Jobs } from './page-jobs.js';
import { readBatch } from './read-batch.js';
import { rewritePack } from './rewrite-pack.js';
import { buildSegment, mergeSegments, releaseSegment } from './segment-jobs.js';
import { verifyPack } from './verify-pack.js';

/** Sessions that save. */
const packers = new Map<number, Packer>();
/** Sessions that read. */
const readers = new Map<number, { ops: PageOps; packs: PackSet }>();
const batches = new WeakMap<SharedArrayBuffer, PageBatch>();
/** Batches whose pages native threads are hashing, until the job of the batch runs. */
const hashing = new Map<PageBatch, () => void>();

function batchOf(shared: SharedArrayBuffer): PageBatch {
  let batch = batches.get(shared);
  if (!batch) {
    batch = new PageBatch(shared);
    batches.set(shared, batch);
  }
  return batch;
}

function sessionOf<T>(sessions: Map<number, T>, session: number): T {
  const found = sessions.get(session);
  if (!found) throw new Error(`no session ${session} in this thread`);
  return found;
}

const jobs: Jobs = {
  packBegin({ session, dir, fingerprintBits, digest, packs, segments }) {
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    const mapped = mapSegments(dir, segments, packers.size > 0);
    packers.set(session, new Packer(ops, dir, generationsOf(packs), [...mapped.values()], digest));
    return { missing: segments.flatMap(({ number }) => (mapped.has(number) ? [] : [number])) };
  },
  packBatch({ session, batch: shared, count, manifest, newNumbers }) {
    const batch = batchOf(shared);
    const endHashing = hashing.get(batch);
    hashing.delete(batch);
    endHashing?.();
    const packer = sessionOf(packers, session);
    if (!endHashing) packer.ops.hashPages(batch.pages, count, batch.fingerprints);
    packer.addPackNumbers(newNumbers);
    packer.deduplicate(batch, count, manifest);
    return { spareNumbers: packer.spareNumbers, uncommitted: packer.uncommitted };
  },
  packAgain({ session, batch, count, newNumbers }) {
    const packer = sessionOf(packers, session);
    packer.addPackNumbers(newNumbers);
    packer.storeAgain(batchOf(batch), count);
    return { spareNumbers: packer.spareNumbers };
  },
  packRead({ session, batch, count }) {
    sessionOf(packers, session).readBack(batchOf(batch), count);
    return null;
  },
  packLocate: ({ session, fingerprints, digests, id }) => ({
    places: sessionOf(packers, session).locate(fingerprints, digests, id),
  }),
  packReceived({ session, batch, ids, digest, newNumbers }) {
    const packer = sessionOf(packers, session);
    packer.addPackNumbers(newNumbers);
    packer.storeReceived(batchOf(batch), ids, digest);
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
  readBatch({ session, batch: shared, run }) {
    const { ops, packs } = sessionOf(readers, session);
    readBatch(ops, packs, batchOf(shared), run);
    return null;
  },
  readEnd({ session }) {
    readers.get(session)?.packs.close();
    readers.delete(session);
    return null;
  },

  forgetSegments() {
    if (packers.size === 0) unmapSegments();
    return null;
  },
  mergeSegments,
  buildSegment,
  segmentEnd: releaseSegment,
  verifySegment({ dir, row }) {
    const damage = verifySegment(pageOps, dir, row);
    return damage && { file: damage.file, offset: damage.offset, message: damage.why, chunks: [] };
  },
  verifyPack: ({ dir, pack, fingerprintBits, readData }) =>
    verifyPack(dir, pack, withFingerprintBits(pageOps, fingerprintBits), readData),
  rewritePack,
};

/**
 * Begins what native threads can do before a job's turn comes: the fingerprints of its pages. The caller then runs the job
 * in any case, for its batch is in use until then.
 */
export function prepareJob<N extends JobName>(name: N, input: JobInput<N>): void {
  if (name !== 'packBatch') return;
  const { session, batch: shared, count } = input as JobInput<'packBatch'>;
  const packer = packers.get(session);
  if (!packer) return;
  const batch = batchOf(shared);
  hashing.set(batch, packer.ops.hashPagesAhead(batch.pages, count, batch.fingerprints));
}

/** Errors: those of the job. */
export const runJob = <N extends JobName>(name: N, input: JobInput<N>): JobOutput<N> =>
  jobs[name](input as never) as JobOutput<N>;
