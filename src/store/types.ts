/**
 * The plain data of the store's public interface (class Store in store.ts).
 *
 * The command line prints these objects as JSON, so field names are part of its interface. Units are in the names.
 */
import type { MovedTag, SnapshotSummary } from '../page-stream.js';

export type {
  MovedTag,
  Progress,
  SaveResult,
  SnapshotKind,
  SnapshotMetadata,
  SnapshotSummary,
} from '../page-stream.js';

export interface RegionSummary {
  readonly name: string;
  readonly sizeBytes: number;
  readonly nonZeroPages: number;
  /** Pages that differ from the parent's region of the same name. Null: there is none in the store, or it is damaged. */
  readonly changedPages: number | null;
}

/** What a page of a {@link PageMap} is. The byte of a cell is the sum over its pages. Zero pages count as 0. */
export const PageClass = {
  /** No other snapshot needs the stored page. */
  own: 1,
  /** Another snapshot needs it, too. */
  shared: 2,
  /** It cannot be read. Of a damaged manifest block, all cells are damaged. */
  damaged: 4,
  /** It differs from the parent's, or from that of the snapshot that it is compared with. */
  changed: 8,
} as const;

/** The pages of a region by class, in cells of equal size. */
export interface PageMap {
  readonly region: string;
  /** Of the whole region. */
  readonly sizeBytes: number;
  /** The first page that is mapped. */
  readonly fromPage: number;
  /** How many pages are mapped. */
  readonly pages: number;
  /** A power of two. The last cell may have fewer pages. */
  readonly pagesPerCell: number;
  /** One byte a cell: a sum of {@link PageClass}. */
  readonly cells: Uint8Array;
  readonly zeroPages: number;
  readonly ownPages: number;
  readonly sharedPages: number;
  readonly damagedPages: number;
  /** Null: the parent is not in the store or has no such region, or one of the two is damaged. */
  readonly changedPages: number | null;
}

export interface PageMapOptions {
  /** Default: the first region. */
  readonly region?: string | undefined;
  /** The first page of the map: a multiple of 512. Default: 0. */
  readonly fromPage?: number | undefined;
  /** How many pages, at most. Default: all. */
  readonly pages?: number | undefined;
  /** The snapshot that pages are compared with. Default: the parent. */
  readonly base?: string | undefined;
  /** Default: 4096. */
  readonly maxCells?: number | undefined;
  /** Read and verify every page. Without it, only damage of the structure is found. */
  readonly readData?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** How a region differs between two snapshots. */
export interface RegionDifference {
  readonly region: string;
  /** Its name in the second snapshot. It differs from `region` only if regions were named. */
  readonly otherRegion: string;
  /** In the first and in the second snapshot; null: that snapshot does not have the region. */
  readonly sizeBytes: readonly [number | null, number | null];
  readonly pages: number;
  /** The sizes of these pages. The last page of a region may be short. */
  readonly bytes: number;
  /** Where they are, ascending: from `fromBytes` up to, but not including, `toBytes`. */
  readonly ranges: readonly { readonly fromBytes: number; readonly toBytes: number }[];
}

export interface SnapshotDetails extends SnapshotSummary {
  readonly regions: readonly RegionSummary[];
  /** Bytes that `rm` of this snapshot and `gc` would free. */
  readonly uniqueBytes: number;
  /**
   * When check last read its packs, ISO 8601: the least recently verified of them. Null: it has not read all of them, or
   * found damage.
   */
  readonly verifiedAt: string | null;
  /** The configuration of the machine as saved; null for a file. */
  readonly machine: unknown;
  readonly host: unknown;
}

export interface StoreStats {
  readonly snapshots: number;
  readonly logicalBytes: number;
  readonly nonZeroBytes: number;
  /** Uncompressed size of all distinct chunks in use. */
  readonly uniqueBytes: number;
  /** storedBytes + indexBytes is the size of the directory according to `du -b`, within 1%. */
  readonly storedBytes: number;
  readonly indexBytes: number;
  readonly deadBytes: number;
  readonly chunks: number;
  readonly packs: number;
  readonly packBytes: number;
  /** Size of the packs that check has read without finding damage. */
  readonly verifiedBytes: number;
  /** When the least recently verified of these packs was read, ISO 8601. Null: there are none. */
  readonly verifiedAt: string | null;
  /** logicalBytes / (storedBytes + indexBytes). */
  readonly ratio: number;
}

/** The tags of a snapshot after some were added. */
export interface TaggedSnapshot {
  readonly id: string;
  /** All of its tags, sorted. */
  readonly tags: readonly string[];
  /** Those of the added tags that named other snapshots before. */
  readonly movedTags: readonly MovedTag[];
}

/** A tag, and the ID of the snapshot that it names. */
export interface Tag {
  readonly tag: string;
  readonly id: string;
}

export interface RemovedSnapshot {
  readonly id: string;
  /** The tags that were removed with it, sorted. */
  readonly tags: readonly string[];
}

export interface CheckOptions {
  /**
   * False: check the structure only. True: read every byte. `{ part, of }`: read that share of the packs' bytes, the
   * least recently read packs first.
   */
  readonly readData: boolean | { readonly part: number; readonly of: number };
  /** Ends the check between two packs, snapshots or segments. What was read counts as unread. */
  readonly signal?: AbortSignal | undefined;
}

/** Lost bytes of a region: from `fromBytes` up to, but not including, `toBytes`. */
export interface LostRange {
  readonly snapshot: string;
  readonly tags: readonly string[];
  readonly region: string;
  readonly fromBytes: number;
  readonly toBytes: number;
}

export interface RepairResult {
  /** One sentence for each problem found and each action taken. */
  readonly actions: string[];
  /** Chunks that were restored from another chunk with the same digest. */
  readonly healedChunks: number;
  /** The parts of snapshots that are lost. */
  readonly lost: LostRange[];
}

export interface Problem {
  readonly file: string;
  readonly offset: number | null;
  /** The snapshots that need the lost data. */
  readonly snapshots: readonly string[];
  /** Their regions that need it; none for damage of a snapshot's own file. */
  readonly regions: readonly { readonly snapshot: string; readonly region: string }[];
  readonly message: string;
}
