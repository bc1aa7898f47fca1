/**
 * The disks of a machine as its config describes them, and as the user asks for them.
 *
 * Invariant: paths and stores in a config are shown. A restored machine uses none of them: it reads its disks from the
 * snapshot that it is restored from.
 */
import { type Check, integer, list, object, oneOf, satisfying, text } from '../../schema.js';
import type { ImageMode } from './disk-image.js';
import { BLOCK_BYTES, SECTOR_BYTES } from './disk-setup.js';

/** `pause`: when the host fails, the machine is paused and the request waits. `report`: the guest gets an I/O error. */
export type OnError = 'pause' | 'report';

export type DiskOrigin =
  | { readonly kind: 'file'; readonly path: string }
  /** A copy of a directory or a file. */
  | { readonly kind: 'share'; readonly path: string }
  | {
      readonly kind: 'snapshot';
      /** Absolute path of the store. */
      readonly store: string;
      /** ID of the snapshot. */
      readonly snapshot: string;
      readonly region: string;
    };

export interface DiskConfig {
  /** `disk0`, `disk1`, …: the name of its device, and of its region in snapshots. */
  readonly name: string;
  readonly source: DiskOrigin;
  /**
   * `rw`: an image file is written itself; what is written to a snapshot's region is saved when the machine ends. `cow`:
   * what is written ends with the machine. `ro`: the guest cannot write.
   */
  readonly mode: ImageMode;
  readonly sizeBytes: number;
  readonly onError: OnError;
}

/** A disk as the user asks for it. */
export interface DiskRequest {
  readonly source: /** `fd`: an open file that is used in place of the path, which is only shown then. It is closed with the machine. */
    | { readonly kind: 'file'; readonly path: string; readonly fd?: number | undefined }
    | { readonly kind: 'share'; readonly path: string }
    /** `region` null: the only one that can be a disk. */
    | { readonly kind: 'snapshot'; readonly snapshot: string; readonly region: string | null };
  readonly mode: ImageMode;
  readonly onError: OnError;
}

/** More than there are virtio devices. */
export const MAX_DISKS = 16;

/** 8 TiB: the numbers of its blocks fit into 32 bits, and the sets of its blocks into memory. */
export const MAX_DISK_BYTES = 2 ** 43;

export const diskName = (index: number): string => `disk${index}`;

/** What can be the name of a region that is a disk. */
const REGION_NAME = /^[a-z0-9@._-]{1,64}$/;

const SOURCE: Check<DiskOrigin> = (value, path) => {
  const kind = oneOf('file', 'share', 'snapshot');
  const { kind: found } = object({ kind }, { others: 'ignore' })(value, path);
  return found !== 'snapshot'
    ? object({ kind: oneOf('file', 'share'), path: text() }, { others: 'ignore' })(value, path)
    : object(
        { kind: oneOf('snapshot'), store: text(), snapshot: text(), region: text(REGION_NAME, 'a region') },
        { others: 'ignore' },
      )(value, path);
};

/** The check of the disks in a snapshot's description. Names follow from the order. */
export const DISK_CONFIGS: Check<readonly DiskConfig[]> = satisfying(
  list(
    object(
      {
        name: text(),
        source: SOURCE,
        mode: oneOf('rw', 'ro', 'cow'),
        sizeBytes: satisfying(
          integer(SECTOR_BYTES, MAX_DISK_BYTES),
          (bytes) => bytes % SECTOR_BYTES === 0,
          `is not a multiple of ${SECTOR_BYTES}`,
        ),
        onError: oneOf('pause', 'report'),
      },
      { others: 'ignore' },
    ),
    0,
    MAX_DISKS,
  ),
  (disks) => disks.every(({ name }, i) => name === diskName(i)),
  `are not named ${diskName(0)}, ${diskName(1)}, … in this order`,
);

/** The size of the blocks of all disks together. */
export const totalDiskBytes = (disks: readonly Pick<DiskConfig, 'sizeBytes'>[]): number =>
  disks.reduce((sum, { sizeBytes }) => sum + Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES, 0);
