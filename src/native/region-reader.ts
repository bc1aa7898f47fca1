/**
 * The verified reader of one region of a snapshot in a store (docs/format.md, "How a reader verifies data").
 *
 * Invariants:
 * - Every byte that it gives was proven: by the checksum of its frame, and by the fingerprint in the manifest, whose
 *   entries come from a snapshot file that the caller has verified.
 * - It needs no lock and no index. The caller holds a pin on the snapshot while the reader is open.
 * - A pack that gc or repair replaces meanwhile is found again in the directory. Failures are not remembered, so an
 *   operation that failed may be tried again.
 *
 * A reader is an integer that any thread of the process may use, several at a time.
 */
import { addon } from './addon.js';

/** Names a region reader in every Worker of this process. */
export type RegionReader = number;

export interface RegionReaderOptions {
  /** Path of the directory `packs` of the store. It is opened once and not by way of a link. */
  readonly packsDir: string;
  /** Size of the region. Its last page may be short. */
  readonly sizeBytes: number;
  /** The entries of the region's manifest blocks, 32 bytes each, as in the snapshot's file; copied. */
  readonly blocks: Uint8Array;
  /** Pairs of pack number and generation, as the index lists them. They save a look into the directory; copied. */
  readonly generations?: Uint32Array;
  /** Fingerprints are cut to so many bits (src/native/pages.ts, withFingerprintBits). 64 outside of tests. */
  readonly fingerprintBits?: number;
}

/** Why a read failed. */
export interface RegionReaderError {
  /** As {@link readRegion} returned it. */
  readonly errno: number;
  /** Relative to the store, such as `packs/0000002a-0.pack`. */
  readonly file: string;
  /** In the file, in bytes; null: the whole file. */
  readonly offset: number | null;
  readonly why: string;
}

interface ReaderFunctions {
  regionOpen(
    packsDir: string,
    sizeBytes: number,
    blocks: Uint8Array,
    generations: Uint32Array,
    fingerprintBits: number,
  ): number;
  regionClose(reader: number): void;
  regionRead(reader: number, offset: number, into: Uint8Array): number;
  regionHasData(reader: number, offset: number, length: number): boolean;
  regionDataPages(reader: number, block: number, into: Uint8Array): number;
  regionError(reader: number): [number, string, number, string] | null;
}

const native = (): ReaderFunctions => addon();

const NO_GENERATIONS = new Uint32Array(0);

/** Opens the packs' directory. Errors: SystemError; TypeError for entries that findInvalidEntry would find. */
export const openRegionReader = ({
  packsDir,
  sizeBytes,
  blocks,
  generations = NO_GENERATIONS,
  fingerprintBits = 64,
}: RegionReaderOptions): RegionReader =>
  native().regionOpen(packsDir, sizeBytes, blocks, generations, fingerprintBits);

/** Drops the handle. What reads at the moment ends undisturbed. */
export const closeRegionReader = (reader: RegionReader): void => native().regionClose(reader);

/**
 * Fills `into` from `offset` of the region on; blocks. Bytes after the end of the region are zeros. Returns 0 or a
 * positive errno: EBADMSG (the store is damaged there, or a pack is missing), EOPNOTSUPP (a newer format), or that of a
 * failed system call, EIO among them. {@link regionReaderError} has the details.
 */
export const readRegion = (reader: RegionReader, offset: number, into: Uint8Array): number =>
  native().regionRead(reader, offset, into);

/**
 * False: all these bytes are zero. Answered from the list of manifest blocks alone (2 MiB each): it reads nothing and
 * does not block.
 */
export const regionHasData = (reader: RegionReader, offset: number, length: number): boolean =>
  native().regionHasData(reader, offset, length);

/**
 * Sets the 512 bits of `into` (64 bytes) to which pages of manifest block `block` are not zero: page `i` of the block is
 * bit `i` % 8 of byte ⌊`i` / 8⌋. Blocks. Returns as {@link readRegion}.
 */
export const regionDataPages = (reader: RegionReader, block: number, into: Uint8Array): number =>
  native().regionDataPages(reader, block, into);

/** The last failure of the reader, on whatever thread; null: none yet. */
export function regionReaderError(reader: RegionReader): RegionReaderError | null {
  const error = native().regionError(reader);
  if (!error) return null;
  const [errno, file, offset, why] = error;
  return { errno, file, offset: offset < 0 ? null : offset, why };
}
