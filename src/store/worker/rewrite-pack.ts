/**
 * Writes the next generation of a pack, without unreferenced chunks, in a page Worker.
 *
 * Invariants:
 * - Chunks keep their numbers, digests and fingerprints. The pack keeps the ID of its digests, so a chunk is proven by the
 *   digest that it got when it was saved.
 * - A pack that LZ4-HC has compressed stays so, where there is LZ4-HC.
 * - The new file is read back: its chunks have the digests that the old generation lists.
 * - If it fails, there is no new file.
 */

import { BitSet } from '../../bit-set.js';
import { type PageOps, pageOps } from '../../native/pages.js';
import { PAGE_BYTES } from '../../page-stream.js';
import { DamageError } from '../disk/damage.js';
import { DIGEST_BYTES, digestsOf } from '../pack/digest.js';
import { Effort, FINGERPRINT_BYTES, FRAME_BYTES, FrameFlag } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import { PackWriter, type SealedPack } from '../pack/pack-writer.js';
import type { JobInput } from './page-jobs.js';

/** An estimate compresses one of so many frames. LZ4-HC takes a second for about 80 MB. */
const FRAMES_PER_SAMPLE = 16;

/** Errors: DAMAGED. */
export function rewritePack({ dir, pack, live, recompress, dryRun }: JobInput<'rewritePack'>): SealedPack {
  const reader = new PackReader(pageOps, dir, pack);
  let writer: PackWriter | null = null;
  try {
    const chunks = new LiveChunks(reader, live);
    const isHigh = (recompress || reader.footer.effort >= Effort.high) && pageOps.hasHigh;
    const effort = isHigh ? Effort.high : Effort.fast;
    writer = new PackWriter(pageOps, dir, pack.number, pack.generation + 1, {
      ...{ effort, dryRun },
      digest: reader.footer.digest,
    });
    const isSampled = dryRun && recompress;
    copyChunks(reader, writer, chunks, isSampled ? FRAMES_PER_SAMPLE : 1);
    let sealed = writer.seal();
    if (isSampled) sealed = extrapolated(sealed, chunks.count);
    if (!dryRun) proveChunks(pageOps, dir, sealed, chunks);
    writer.close();
    return sealed;
  } catch (error) {
    writer?.abandon();
    throw error;
  } finally {
    reader.close();
  }
}

const extrapolated = (sample: SealedPack, chunks: number): SealedPack => ({
  ...sample,
  chunks,
  sizeBytes: Math.round((sample.sizeBytes / sample.chunks) * chunks),
});

/** The chunks of a pack that the next generation gets, as the pack lists them. */
class LiveChunks {
  readonly #fingerprints: Buffer;
  readonly #digests: Buffer;
  /** Positions in the pack, ascending. */
  readonly positions: readonly number[];

  /** Errors: DAMAGED. */
  constructor(
    readonly reader: PackReader,
    readonly live: Uint8Array,
  ) {
    ({ fingerprints: this.#fingerprints, digests: this.#digests } = reader.readIdentities());
    const positions: number[] = [];
    reader.numbers.forEach((number, position) => void (hasBit(live, number) && positions.push(position)));
    this.positions = positions;
    if (positions.length !== BitSet.from(live).count())
      throw new DamageError(reader.file, null, 'a snapshot refers to a chunk that the pack does not have');
  }

  get count(): number {
    return this.positions.length;
  }

  has(number: number): boolean {
    return hasBit(this.live, number);
  }

  fingerprint(position: number): Buffer {
    return this.#fingerprints.subarray(position * FINGERPRINT_BYTES, (position + 1) * FINGERPRINT_BYTES);
  }

  digest(position: number): Buffer {
    return this.#digests.subarray(position * DIGEST_BYTES, (position + 1) * DIGEST_BYTES);
  }
}

/** `every`: copies only the first of so many frames that have a live chunk. */
function copyChunks(reader: PackReader, writer: PackWriter, live: LiveChunks, every: number): void {
  const raw = new Uint8Array(FRAME_BYTES);
  let index = -1;
  let found = -1;
  for (const { first, chunks, flags } of reader.frames) {
    index++;
    const numbers = reader.numbers.subarray(first, first + chunks);
    if (!numbers.some((number) => live.has(number))) continue;
    if (++found % every !== 0) continue;
    const isLost = (flags & FrameFlag.lost) !== 0;
    const isManifest = (flags & FrameFlag.manifest) !== 0;
    if (!isLost) reader.readFrame(index, raw);
    numbers.forEach((number, i) => {
      if (!live.has(number)) return;
      const fingerprint = live.fingerprint(first + i);
      const digest = live.digest(first + i);
      if (isLost) writer.appendLost(number, fingerprint, digest, isManifest);
      else writer.appendNumbered(raw, i * PAGE_BYTES, fingerprint, isManifest, number, digest);
    });
  }
}

/**
 * Reads a new generation back. Each chunk must have the number, the identities and the bytes that `live` lists, so that
 * the old generation can be deleted. Errors: DAMAGED, of the old generation: its bytes are not what it lists.
 */
function proveChunks(ops: PageOps, dir: string, sealed: SealedPack, live: LiveChunks): void {
  const reader = new PackReader(ops, dir, sealed);
  const raw = new Uint8Array(FRAME_BYTES);
  try {
    const listed = new LiveChunks(reader, live.live);
    let index = 0;
    for (const { first, chunks, flags } of reader.frames) {
      const isLost = (flags & FrameFlag.lost) !== 0;
      if (!isLost) reader.readFrame(index, raw);
      index++;
      const digests = digestsOf(ops, reader.footer.digest, raw, chunks);
      for (let i = 0; i < chunks; i++) {
        const position = first + i;
        const before = live.positions[position]!;
        if (
          reader.numbers[position] !== live.reader.numbers[before] ||
          !listed.fingerprint(position).equals(live.fingerprint(before)) ||
          !listed.digest(position).equals(live.digest(before)) ||
          !(isLost || digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES).equals(live.digest(before)))
        )
          throw new DamageError(live.reader.file, null, 'chunks are not those that the pack lists');
      }
    }
  } finally {
    reader.close();
  }
}

export const hasBit = (bits: Uint8Array, i: number): boolean => ((bits[i >>> 3] ?? 0) & (1 << (i & 7))) !== 0;
