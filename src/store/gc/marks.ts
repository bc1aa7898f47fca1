/**
 * The chunks that the snapshots of a store need, updated beside saves and removals of other processes. The roots are
 * the snapshots of the index and those that a session has pinned (docs/format.md, "Locks").
 *
 * Invariants:
 * - A chunk that was marked stays marked.
 * - If the caller holds a pack exclusively, `refresh` marks every chunk of it that was needed when `refresh` began.
 * - A snapshot that another process removes meanwhile is not damage.
 * - A snapshot is identified by its root digest as well: one that was removed and copied back has the same ID, but
 *   other places.
 */
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { lockState } from '../disk/file-locks.js';
import { at, namesIn, SNAPSHOT_ID, SNAPSHOTS } from '../disk/layout.js';
import type { PackSet } from '../pack/pack-set.js';
import { readNamed, rootDigest, snapshotFile } from '../snapshot/snapshot-file.js';
import { Usage } from '../snapshot/usage.js';

export class Marks {
  readonly usage: Usage;
  readonly #packs: PackSet;
  /** The root digests of the marked snapshots, by ID. */
  readonly #marked = new Map<string, string>();

  /** `except`: the ID of a snapshot to leave out. */
  constructor(
    readonly context: StoreContext,
    readonly except?: string,
  ) {
    this.#packs = context.packSet();
    this.usage = new Usage(this.#packs);
  }

  /** Marks the snapshots that are new since the last call. Errors: DAMAGED when one of them cannot be read. */
  refresh(): void {
    // The order matters: a session that ends between two steps has committed before the last one, or its pin was seen.
    this.#markListed();
    this.#markPinned();
    this.#markListed();
  }

  #markListed(): void {
    const { index } = this.context;
    for (const id of index.ids()) this.#mark(id, () => index.has(id));
  }

  #markPinned(): void {
    const { dir } = this.context;
    for (const name of namesIn(dir, SNAPSHOTS)) {
      if (!SNAPSHOT_ID.test(name) || this.#isMarked(name)) continue;
      // A file that cannot be opened may be pinned, so it is marked, or reported as damaged.
      const mayBePinned = (): boolean =>
        ['shared', 'unreadable'].includes(lockState(at(dir, snapshotFile(name))));
      if (mayBePinned()) this.#mark(name, mayBePinned);
    }
  }

  #mark(id: string, isStillNeeded: () => boolean): void {
    if (id === this.except || this.#isMarked(id)) return;
    try {
      const digest = rootDigest(this.context.dir, id); // first: a file replaced after this is marked the next time
      this.usage.addSnapshot(readNamed(this.context.dir, id));
      this.#marked.set(id, digest);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      if (isStillNeeded()) throw error.in(id);
    }
  }

  /** How many chunks of a pack no marked snapshot needs. */
  deadChunks({ number, chunks }: { readonly number: number; readonly chunks: number }): number {
    return chunks - this.usage.all.count(number);
  }

  #isMarked(id: string): boolean {
    const marked = this.#marked.get(id);
    if (marked === undefined) return false;
    try {
      return rootDigest(this.context.dir, id) === marked;
    } catch (error) {
      if (error instanceof DamageError) return false; // removed, or reported as damaged later
      throw error;
    }
  }

  close(): void {
    this.#packs.close();
  }
}

/** The chunks that all snapshots need now. */
export function markAll(context: StoreContext, except?: string): Usage {
  const marks = new Marks(context, except);
  try {
    marks.refresh();
    return marks.usage;
  } finally {
    marks.close();
  }
}
