/** Reads a snapshot of a local store for the source end. The snapshot stays pinned until the reader is closed. */
import { PAGE_BYTES } from '../../page-stream.js';
import { DIGEST_BYTES } from '../pack/digest.js';
import type { PackReader } from '../pack/pack-reader.js';
import type { PackSet } from '../pack/pack-set.js';
import type { BlockEntry, BlockList } from '../snapshot/block-list.js';
import type { SnapshotDescription } from '../snapshot/description.js';
import { type ManifestBlock, readBlock } from '../snapshot/manifest.js';
import type { StoredSnapshot } from '../stored-snapshot.js';
import type { PackIdentities, SnapshotReader } from './snapshot-reader.js';

export function identitiesOf(reader: PackReader): PackIdentities {
  const { fingerprints, digests } = reader.readIdentities();
  return {
    digestId: reader.footer.digest,
    of(chunk) {
      const position = reader.positionOf(chunk);
      if (position < 0) return null;
      return {
        fingerprint: fingerprints.subarray(8 * position, 8 * position + 8),
        digest: digests.subarray(DIGEST_BYTES * position, DIGEST_BYTES * (position + 1)),
      };
    },
  };
}

export class LocalReader implements SnapshotReader {
  readonly #packs: PackSet;
  #identities: { pack: number; of: PackIdentities } | null = null;

  /** Closing the reader closes `snapshot`. */
  constructor(readonly snapshot: StoredSnapshot) {
    this.#packs = snapshot.context.packSet();
  }

  get description(): SnapshotDescription {
    return this.snapshot.file.description;
  }

  get tags(): readonly string[] {
    return this.snapshot.summary.tags;
  }

  get blocks(): BlockList {
    return this.snapshot.file.blocks;
  }

  get state(): Uint8Array {
    return this.snapshot.file.state;
  }

  async block(entry: BlockEntry): Promise<ManifestBlock> {
    return readBlock(this.snapshot.context.ops, this.#packs, this.description, entry);
  }

  async hasChunk(pack: number, chunk: number): Promise<boolean> {
    return this.#packs.pack(pack).positionOf(chunk) >= 0;
  }

  /** Keeps the lists of one pack only: the source end asks in the order of packs. */
  async identities(pack: number): Promise<PackIdentities> {
    if (this.#identities?.pack !== pack) {
      this.#identities = { pack, of: identitiesOf(this.#packs.pack(pack)) };
    }
    return this.#identities.of;
  }

  async willRead(): Promise<void> {}

  async page(pack: number, chunk: number): Promise<Uint8Array> {
    const { bytes, offset } = this.#packs.chunk(pack, chunk);
    return bytes.subarray(offset, offset + PAGE_BYTES);
  }

  close(): void {
    this.#packs.close();
    this.snapshot.close();
  }
}
