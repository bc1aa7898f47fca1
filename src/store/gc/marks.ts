/**
 * What the snapshots of a store need, kept up to date beside saves and removals of other processes: the roots are the
 * snapshots of the index and those that a session has pinned (docs/format.md, "Locks").
 *
 * Invariants: what was marked stays marked; `refresh` misses nothing that was needed when it began, if it is called
 * while the caller holds the pack in question alone. A snapshot removed meanwhile is no damage; one that was removed
 * and copied back has its id again and other places, so it is known by its root digest.
 */
import type { StoreContext } from '../context.js';
import { DamageError } from '../disk/damage.js';
import { lockState } from '../disk/file-locks.js';
import { at, namesIn, SNAPSHOT_ID, SNAPSHOTS } from '../disk/layout.js';
import type { PackSet } from '../pack/pack-set.js';
import { rootDigest, snapshotFile } from '../snapshot/snapshot-file.js';
import { Usage } from '../snapshot/usage.js';
import { readNamed } from '../stored-snapshot.js';

export class Marks {
  readonly usage: Usage;
  readonly #packs: PackSet;
  /** The root digests of those that are marked, by id. */
  readonly #marked = new Map<string, string>();

  /** `except`: a snapshot of the index that is not to be marked. */
  constructor(
    readonly context: StoreContext,
    readonly except?: string,
  ) {
    this.#packs = context.packSet();
    this.usage = new Usage(this.#packs);
  }

  /** Marks the snapshots that appeared since. Errors: DAMAGED when it cannot be told what one of them needs. */
  refresh(): void {
    // In this order: a session that ends between the steps has committed before the last one, or its pin was seen.
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
      // Of one that cannot be opened nobody can tell whether it is pinned: it is marked as well, or said to be damaged.
      const mayBePinned = (): boolean =>
        ['shared', 'unreadable'].includes(lockState(at(dir, snapshotFile(name))));
      if (mayBePinned()) this.#mark(name, mayBePinned);
    }
  }

  #mark(id: string, isStillNeeded: () => boolean): void {
    if (id === this.except || this.#isMarked(id)) return;
    try {
      const digest = rootDigest(this.context.dir, id); // first: what comes in between is seen the next time
      this.usage.addSnapshot(readNamed(this.context.dir, id));
      this.#marked.set(id, digest);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      if (isStillNeeded()) throw error.in(id);
    }
  }

  #isMarked(id: string): boolean {
    const marked = this.#marked.get(id);
    if (marked === undefined) return false;
    try {
      return rootDigest(this.context.dir, id) === marked;
    } catch (error) {
      if (error instanceof DamageError) return false; // it is gone, or will be found damaged
      throw error;
    }
  }

  close(): void {
    this.#packs.close();
  }
}

/** What all snapshots need at this moment. */
export function markAll(context: StoreContext, except?: string): Usage {
  const marks = new Marks(context, except);
  try {
    marks.refresh();
    return marks.usage;
  } finally {
    marks.close();
  }
}
