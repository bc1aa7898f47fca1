/**
 * A disk as it is handed to the device thread: plain data that postMessage can clone. Descriptors, readers and memories
 * are numbers that count in the whole process; whoever opened them closes them after the device thread has ended.
 */

/** The size of a block of a disk: what overlays, dirty sets and saves count in. The last block of a disk may be short. */
export const BLOCK_BYTES = 4096;

/** The unit of a guest's requests. */
export const SECTOR_BYTES = 512;

/** What a disk shows where nothing was written. */
export type DiskBase =
  | { readonly kind: 'file'; readonly fd: number }
  /** `name` is the snapshot and region, for messages. */
  | { readonly kind: 'store'; readonly reader: number; readonly name: string }
  | { readonly kind: 'zeros' };

/** A sparse file with the blocks that were written. */
export interface OverlaySetup {
  readonly fd: number;
  /** The blocks that the overlay has (shared-bits.ts). */
  readonly present: SharedArrayBuffer;
  /** How much space of the file system stays free for saves. */
  readonly reserveBytes: number;
}

export interface DiskSetup {
  readonly name: string;
  /** A multiple of {@link SECTOR_BYTES}. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly onError: 'pause' | 'report';
  readonly base: DiskBase;
  /** Null: writes go to the base, which is a file. */
  readonly overlay: OverlaySetup | null;
  /** The blocks that were written since the last harvest (shared-bits.ts). */
  readonly written: SharedArrayBuffer;
  /** Where unnamed files may be made: blocks that a save sets aside. */
  readonly scratchDir: string;
}

export const blocksOf = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK_BYTES);
