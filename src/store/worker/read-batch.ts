/**
 * Reads pages of a snapshot, in a page Worker.
 *
 * Invariant: a page leaves here only if it has the fingerprint that the snapshot lists. Errors: DAMAGED.
 */
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError, rangeOf } from '../disk/damage.js';
import type { PackSet } from '../pack/pack-set.js';
import type { PageBatch } from './page-batch.js';
import type { ReadRun } from './page-jobs.js';

/** Fills the batch's pages from its places: page `i` of the batch is page `run.pages[i]` of the region. */
export function readBatch(ops: PageOps, packs: PackSet, batch: PageBatch, run: ReadRun): void {
  const { pages, places } = batch;
  const count = run.pages.length;
  for (const i of readingOrder(places, count)) {
    try {
      const { bytes, offset } = packs.chunk(places[2 * i]!, places[2 * i + 1]!);
      pages.set(bytes.subarray(offset, offset + PAGE_BYTES), i * PAGE_BYTES);
    } catch (error) {
      throw errorOfPage(error, run, i);
    }
  }
  const wrong = findWrongPage(ops, batch, count);
  if (wrong >= 0)
    throw errorOfPage(notThePage(packs, places[2 * wrong]!, places[2 * wrong + 1]!), run, wrong);
}

/** Damage names page `i` of the batch. */
function errorOfPage(error: unknown, { snapshot, region, pages }: ReadRun, i: number): unknown {
  if (!(error instanceof DamageError)) return error;
  return error.in(snapshot, rangeOf(region, pages[i]! * PAGE_BYTES, PAGE_BYTES));
}

/** By pack and chunk, so that each frame is decompressed once. */
function readingOrder(places: Uint32Array, count: number): Uint32Array {
  const order = new Uint32Array(count);
  let isSorted = true;
  for (let i = 0; i < count; i++) {
    order[i] = i;
    if (i > 0) {
      const packStep = places[2 * i]! - places[2 * i - 2]!;
      if (packStep < 0 || (packStep === 0 && places[2 * i + 1]! < places[2 * i - 1]!)) isSorted = false;
    }
  }
  if (!isSorted)
    order.sort((a, b) => places[2 * a]! - places[2 * b]! || places[2 * a + 1]! - places[2 * b + 1]!);
  return order;
}

/** The first page that has not the fingerprint of the batch; -1: all have it. */
function findWrongPage(ops: PageOps, { pages, fingerprintWords }: PageBatch, count: number): number {
  const hashes = new Uint32Array(count * 2);
  ops.hashPages(pages, count, new Uint8Array(hashes.buffer));
  const word = hashes.findIndex((hash, i) => hash !== fingerprintWords[i]);
  return word < 0 ? -1 : word >>> 1;
}

function notThePage(packs: PackSet, number: number, chunk: number): DamageError {
  const pack = packs.pack(number);
  const frame = pack.frames.at(pack.frames.indexOf(pack.positionOf(chunk)));
  return new DamageError(pack.file, frame.offset, `chunk ${chunk} is not the page that was saved`);
}
