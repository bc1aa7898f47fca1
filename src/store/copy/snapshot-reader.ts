/** The source end's view of a snapshot, whether it is in a local store or behind remote files. */

import type { BlockEntry, BlockList } from '../snapshot/block-list.js';
import type { SnapshotDescription } from '../snapshot/description.js';
import type { ManifestBlock } from '../snapshot/manifest.js';

/** The identities of the chunks of one pack. */
export interface PackIdentities {
  /** The ID of the digests. */
  readonly digestId: number;
  /** `fingerprint`: 8 bytes; `digest`: 32 bytes. Null: the pack has no such chunk. */
  of(chunk: number): { fingerprint: Uint8Array; digest: Uint8Array } | null;
}

/**
 * Everything it returns has passed its checksums. Errors of each method: DAMAGED, with the region where it is the manifest
 * that is damaged; for a remote also REMOTE_FAILED.
 */
export interface SnapshotReader {
  readonly description: SnapshotDescription;
  /** Sorted. */
  readonly tags: readonly string[];
  readonly blocks: BlockList;
  readonly state: Uint8Array;
  block(entry: BlockEntry): Promise<ManifestBlock>;
  hasChunk(pack: number, chunk: number): Promise<boolean>;
  identities(pack: number): Promise<PackIdentities>;
  /** Announces the pages that will be read, in this order, so that neighbours can be fetched together. */
  willRead(places: Iterable<{ pack: number; chunk: number }>): Promise<void>;
  /** The page of a chunk; valid until the next call. */
  page(pack: number, chunk: number): Promise<Uint8Array>;
  close(): void;
}
