/**
 * Reads pages of a snapshot, in a page Worker.
 *
 * Invariant: a page leaves here only if it has the fingerprint that the snapshot lists. Errors: DAMAGED.
 */
import type { PageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import type { PackSet } from '../pack/pack-set.js';
import type { PageBatch } from './page-batch.js';

/** Fills the batch's pages from its places. */
export function readBatch(ops: PageOps, packs: PackSet, batch: PageBatch, count: number): void {
  const { pages, places } = batch;
  for (const i of readingOrder(places, count)) {
    const { bytes, offset } = packs.chunk(places[2 * i]!, places[2 * i + 1]!);
    pages.set(bytes.subarray(offset, offset + PAGE_BYTES), i * PAGE_BYTES);
  }
  verifyBatch(ops, packs, batch, count);
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

function verifyBatch(ops: PageOps, packs: PackSet, batch: PageBatch, count: number): void {
  const { pages, places, fingerprintWords } = batch;
  const hashes = new Uint32Array(count * 2);
  ops.hashPages(pages, count, new Uint8Array(hashes.buffer));
  for (let i = 0; i < count; i++) {
    if (hashes[2 * i] === fingerprintWords[2 * i] && hashes[2 * i + 1] === fingerprintWords[2 * i + 1])
      continue;
    const chunk = places[2 * i + 1]!;
    const pack = packs.pack(places[2 * i]!);
    const frame = pack.frames.at(pack.frames.indexOf(pack.positionOf(chunk)));
    throw new DamageError(pack.file, frame.offset, `chunk ${chunk} is not the page that was saved`);
  }
}
