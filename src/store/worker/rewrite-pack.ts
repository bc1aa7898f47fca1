/**
 * Writes the next generation of a pack, without unreferenced chunks, in a page Worker.
 *
 * Invariants:
 * - Chunks keep their numbers, digests and fingerprints.
 * - If it fails, there is no new file.
 */

import { BitSet } from '../../bit-set.js';
import { pageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { FRAME_BYTES, FrameFlag, SHA256_BYTES } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';
import type { JobInput } from './page-jobs.js';

/** Errors: DAMAGED. */
export function rewritePack({ dir, pack, live, dryRun }: JobInput<'rewritePack'>): SealedPack {
  const reader = new PackReader(pageOps, dir, pack);
  let writer: PackWriter | null = null;
  try {
    if (reader.numbers.filter((number) => hasBit(live, number)).length !== BitSet.from(live).count())
      throw new DamageError(reader.file, null, 'a snapshot refers to a chunk that the pack does not have');
    writer = new PackWriter(pageOps, dir, pack.number, pack.generation + 1, dryRun);
    copyChunks(reader, writer, live);
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

function copyChunks(reader: PackReader, writer: PackWriter, live: Uint8Array): void {
  const { fingerprints, digests } = reader.readIdentities();
  const raw = new Uint8Array(FRAME_BYTES);
  let index = -1;
  for (const { first, chunks, flags } of reader.frames) {
    index++;
    const numbers = reader.numbers.subarray(first, first + chunks);
    if (!numbers.some((number) => hasBit(live, number))) continue;
    const isLost = (flags & FrameFlag.lost) !== 0;
    const isManifest = (flags & FrameFlag.manifest) !== 0;
    if (!isLost) reader.readFrame(index, raw);
    numbers.forEach((number, i) => {
      if (!hasBit(live, number)) return;
      const position = first + i;
      const fingerprint = fingerprints.subarray(position * 8, position * 8 + 8);
      const digest = digests.subarray(position * SHA256_BYTES, (position + 1) * SHA256_BYTES);
      if (isLost) writer.appendLost(number, fingerprint, digest, isManifest);
      else writer.appendNumbered(raw, i * PAGE_BYTES, fingerprint, isManifest, number, digest);
    });
  }
}

export const hasBit = (bits: Uint8Array, i: number): boolean => ((bits[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0;
