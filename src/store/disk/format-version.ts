/** The version that packs, segments and most snapshot files of a store begin with (docs/format.md). */
import { LivesnapError } from '../../errors.js';

export const FORMAT_VERSION = 1;

/** The version of packs whose footer names their digest. Packs of version 1 have SHA-256. */
export const PACK_VERSION = 2;

/** The version of snapshot files of kind `disk`, which format version 1 does not know. */
export const DISK_SNAPSHOT_VERSION = 2;

/** The error for something that only a newer livesnap can read. */
export const newerFormat = (problem: string): LivesnapError =>
  new LivesnapError('NEWER_FORMAT', problem, { hint: 'Update livesnap on this host.' });

/**
 * Refuses a file of a newer version. Verify the file's checksum first, so that a flipped bit is not taken for a newer
 * version: every version has the checksum in the same place. Errors: NEWER_FORMAT.
 */
export function refuseNewer(file: string, version: number, known = FORMAT_VERSION): void {
  if (version > known)
    throw newerFormat(`${file} has format version ${version}; this livesnap knows versions up to ${known}`);
}
