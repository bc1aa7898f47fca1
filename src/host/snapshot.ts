/**
 * A snapshot of a store. Each method is that of the store with the same name.
 *
 * Invariant: the object is of one snapshot, not of a tag. If it has been removed, calls fail with NO_SUCH_SNAPSHOT.
 */
import type { Writable } from 'node:stream';
import type { SnapshotSummary } from '../page-stream.js';
import type { CopyResult } from '../store/copy/copy-result.js';
import type {
  PageMap,
  RegionDifference,
  RemovedSnapshot,
  SnapshotDetails,
  Tag,
  TaggedSnapshot,
} from '../store/types.js';
import type { CallOptions, LongCallOptions } from './call-options.js';
import type {
  CopyOptions,
  CopyRemote,
  DiffOperand,
  FileName,
  MapOptions,
  StoreVerbs,
  TransferOptions,
} from './store-verbs.js';

export class Snapshot {
  readonly id: string;
  /** The snapshot as it was when this object was made. */
  readonly about: SnapshotSummary;
  readonly #store: StoreVerbs;

  constructor(store: StoreVerbs, about: SnapshotSummary) {
    this.#store = store;
    this.id = about.id;
    this.about = about;
  }

  /** Absolute path of its store. */
  get storeDir(): string {
    return this.#store.dir;
  }

  /** The tags that it had when this object was made, sorted. */
  get tags(): readonly string[] {
    return this.about.tags;
  }

  /** All facts, as they are now. */
  details(options?: CallOptions): Promise<SnapshotDetails> {
    return this.#store.details(this.id, options);
  }

  /** Adds tags. A tag that another snapshot has moves to this one. */
  tag(tags: readonly string[], options?: CallOptions): Promise<TaggedSnapshot> {
    return this.#store.tag(this.id, tags, options);
  }

  /** Removes tags of this snapshot: all of them, or none. Errors: NO_SUCH_TAG, also if another snapshot has it. */
  untag(tags: readonly string[], options?: CallOptions): Promise<Tag[]> {
    return this.#store.untag(tags, { ...options, of: this.id });
  }

  /** Removes the snapshot with all of its tags. */
  async remove(options?: CallOptions): Promise<RemovedSnapshot> {
    return (await this.#store.remove([this.id], options))[0]!;
  }

  /** Which pages differ in the other snapshot, by region. */
  diff(other: Snapshot | string | DiffOperand, options?: CallOptions): Promise<RegionDifference[]> {
    const operand =
      typeof other === 'string'
        ? { snapshot: other }
        : other instanceof Snapshot
          ? { snapshot: other.id }
          : other;
    return this.#store.diff({ snapshot: this.id }, operand, options);
  }

  /** What the pages of a region are. */
  map(options?: MapOptions): Promise<PageMap> {
    return this.#store.map(this.id, options);
  }

  async copy(remote: CopyRemote & { readonly to: string }, options?: CopyOptions): Promise<CopyResult> {
    return (await this.#store.copy([this.id], remote, options))[0]!;
  }

  /** Makes `dir` a store with only this snapshot. */
  export(dir: string, options?: TransferOptions): Promise<CopyResult> {
    return this.#store.export(this.id, dir, options);
  }

  /** Writes the stored file, or the only disk of a snapshot of disks. */
  writeFile(to: FileName | Writable, options?: LongCallOptions): Promise<{ bytes: number }> {
    return this.#store.writeFile(this.id, to, options);
  }

  /** Writes a disk of the machine. `number` null: its only disk. */
  writeDisk(
    number: number | null,
    to: FileName | Writable,
    options?: LongCallOptions,
  ): Promise<{ bytes: number }> {
    return this.#store.writeDisk(this.id, number, to, options);
  }
}
