/**
 * What the snapshots of a store need, kept up to date beside saves and removals of other processes: the roots are the
 * snapshots of the index and those that a session has pinned (docs/format.md, "Locks").
 *
 * Invariants: what was marked stays marked; `refresh` misses nothing that was needed when it began, if it is called
 * while the caller holds the pack in question alone. A snapshot removed meanwhile is no damage.
 */
import { readdirSync } from 'node:fs';
import type { StoreContext } from './context.js';
import { DamageError } from './damage.js';
import { lockState } from './file-locks.js';
import { at, SNAPSHOT_ID, SNAPSHOTS } from './layout.js';
import type { PackSet } from './pack-reader.js';
import { readNamed } from './restore.js';
import { snapshotFile } from './snapshot-file.js';
import { Usage } from './usage.js';

export class Marks {
  readonly usage: Usage;
  readonly #packs: PackSet;
  readonly #marked = new Set<string>();

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
    for (const name of readdirSync(at(dir, SNAPSHOTS))) {
      if (!SNAPSHOT_ID.test(name) || this.#marked.has(name)) continue;
      const isPinned = (): boolean => lockState(at(dir, snapshotFile(name))) === 'shared';
      if (isPinned()) this.#mark(name, isPinned);
    }
  }

  #mark(id: string, isStillNeeded: () => boolean): void {
    if (id === this.except || this.#marked.has(id)) return;
    try {
      this.usage.addSnapshot(readNamed(this.context.dir, id));
      this.#marked.add(id);
    } catch (error) {
      if (!(error instanceof DamageError)) throw error;
      if (isStillNeeded()) throw error.in(id);
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
