/**
 * Looks for damage in one pack, in a page Worker: structure only, or every byte.
 *
 * Damage is a result, not an error: the caller needs all of it.
 */
import type { PageOps } from '../../native/pages.js';
import { DamageError, LostChunkError } from '../disk/damage.js';
import { DIGEST_BYTES, digestsOf } from '../pack/digest.js';
import { FRAME_BYTES, FRAME_CHUNKS, FrameFlag, type PackName } from '../pack/pack-format.js';
import { PackReader } from '../pack/pack-reader.js';
import type { PackProblem, PackVerdict } from './page-jobs.js';

export function verifyPack(dir: string, pack: PackName, ops: PageOps, readData: boolean): PackVerdict {
  const problems: PackProblem[] = [];
  let reader: PackReader;
  try {
    reader = new PackReader(ops, dir, pack);
  } catch (error) {
    return { problems: [problemOf(error, null)], listed: null };
  }
  try {
    const { digests, fingerprints } = reader.readIdentities();
    if (readData) verifyData(reader, ops, digests, fingerprints, problems);
    else problems.push(...lostFrames(reader));
  } catch (error) {
    problems.push(problemOf(error, []));
  } finally {
    reader.close();
  }
  return { problems, listed: { chunks: reader.numbers.length, sizeBytes: reader.sizeBytes } };
}

/** Errors: anything but damage. */
function problemOf(error: unknown, chunks: readonly number[] | null): PackProblem {
  if (!(error instanceof DamageError)) throw error;
  return { file: error.file, offset: error.offset, message: error.why, chunks };
}

/** The frames that an earlier repair has marked as lost. */
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
  const hashes = Buffer.alloc(FRAME_CHUNKS * 8);
  [...reader.frames].forEach((frame, index) => {
    const positions = Array.from({ length: frame.chunks }, (_, i) => frame.first + i);
    const addProblem = (lost: number[], message: string): void => {
      const chunks = lost.map((position) => reader.numbers[position]!);
      problems.push({ file: reader.file, offset: frame.offset, message, chunks });
    };
    try {
      reader.readFrame(index, raw);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      addProblem(positions, error.why);
      return;
    }
    ops.hashPages(raw, frame.chunks, hashes);
    const found = digestsOf(ops, reader.footer.digest, raw, frame.chunks);
    const wrong = positions.filter(
      (position, i) =>
        !ops.equal(found, i * DIGEST_BYTES, digests, position * DIGEST_BYTES, DIGEST_BYTES) ||
        !ops.equal(hashes, i * 8, fingerprints, position * 8, 8),
    );
    if (wrong.length > 0) addProblem(wrong, 'chunks are not those that the pack lists');
  });
}
