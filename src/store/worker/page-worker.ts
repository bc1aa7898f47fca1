/**
 * The entry of a page Worker: runs the jobs of page-jobs.ts, one at a time, each synchronously.
 *
 * Invariants:
 * - It has no database and never takes the store's lock.
 * - What it keeps between jobs belongs to a session, which the caller ends.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { useIdleTime } from '../../native/idle-time.js';
import { type PageOps, pageOps, pageOpsLoaded, withFingerprintBits } from '../../native/pages.js';
import { useCancelFlag } from '../disk/waits.js';
import { PackSet } from '../pack/pack-set.js';
import { verifySegment } from '../segment/segment-scan.js';
import { toJobError } from './job-errors.js';
import { mapSegments, unmapSegments } from './mapped-segments.js';
import { generationsOf } from './pack-list.js';
import { Packer } from './packer.js';
import { PageBatch } from './page-batch.js';
import type { JobRequest, JobResponse, Jobs, PageWorkerData } from './page-jobs.js';
import { readBatch } from './read-batch.js';
import { rewritePack } from './rewrite-pack.js';
import { buildSegment, mergeSegments, releaseSegment } from './segment-jobs.js';
import { verifyPack } from './verify-pack.js';

const { cancelFlag, isIdle } = workerData as PageWorkerData;
if (isIdle) useIdleTime();
useCancelFlag(cancelFlag);

/** Sessions that save. */
const packers = new Map<number, Packer>();
/** Sessions that read. */
const readers = new Map<number, { ops: PageOps; packs: PackSet }>();
const batches = new WeakMap<SharedArrayBuffer, PageBatch>();

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
  if (!found) throw new Error(`no session ${session} in this page Worker`);
  return found;
}

const jobs: Jobs = {
  packBegin({ session, dir, fingerprintBits, digest, packs, segments }) {
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    const mapped = mapSegments(dir, segments, packers.size > 0);
    packers.set(session, new Packer(ops, dir, generationsOf(packs), [...mapped.values()], digest));
    return { missing: segments.flatMap(({ number }) => (mapped.has(number) ? [] : [number])) };
  },
  packBatch({ session, batch, count, manifest, newNumbers }) {
    const packer = sessionOf(packers, session);
    packer.addPackNumbers(newNumbers);
    packer.deduplicate(batchOf(batch), count, manifest);
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

const respond = (response: JobResponse): void => parentPort!.postMessage(response);

function run({ id, name, input }: JobRequest): void {
  try {
    respond({ id, output: jobs[name](input as never) });
  } catch (error) {
    respond({ id, error: toJobError(error) });
  }
}

// The port keeps the jobs that arrive before. A failure ends the Worker, and its jobs fail with the reason.
void pageOpsLoaded.then(() => parentPort!.on('message', run));
