/** What the source end of a copy needs of a snapshot, wherever that is. */
import type { ManifestBlock } from '../manifest.js';
import type { BlockEntry, BlockList, SnapshotDescription } from '../snapshot-file.js';

/** The chunks of a pack by number: who they are. */
export interface PackIdentities {
  /** Eight bytes and 32 bytes; null: the pack has no such chunk. */
  of(chunk: number): { fingerprint: Uint8Array; digest: Uint8Array } | null;
}

/** Everything it gives was verified by its checksums. Errors of each: DAMAGED; of a remote, REMOTE_FAILED too. */
export interface SnapshotReader {
  readonly description: SnapshotDescription;
  readonly tag: string | null;
  readonly blocks: BlockList;
  readonly state: Uint8Array;
  block(entry: BlockEntry): Promise<ManifestBlock>;
  /** Whether there is such a chunk. */
  hasChunk(pack: number, chunk: number): Promise<boolean>;
  identities(pack: number): Promise<PackIdentities>;
  /** Says which pages will be asked for, in this order, so that they can be fetched together. */
  expect(places: Iterable<{ pack: number; chunk: number }>): Promise<void>;
  /** The page of a chunk; valid until the next call. */
  page(pack: number, chunk: number): Promise<Uint8Array>;
  close(): void;
}
