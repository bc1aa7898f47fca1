/** The directory, index and lock of an open store, shared by all verbs. */
import { LivesnapError } from '../errors.js';
import type { PageOps } from '../native/pages.js';
import { storeError } from './disk/layout.js';
import { StoreLock } from './disk/store-lock.js';
import type { Index, PackRow } from './index/index-database.js';
import { PackSet } from './pack/pack-reader.js';
import type { PackList } from './worker/page-jobs.js';

export class StoreContext {
  #index: Index | null;

  constructor(
    readonly dir: string,
    readonly write: boolean,
    index: Index,
    readonly ops: PageOps,
    readonly fingerprintBits: number,
  ) {
    this.#index = index;
  }

  get index(): Index {
    if (!this.#index) throw new LivesnapError('NOT_POSSIBLE_NOW', `the store ${this.dir} is closed`);
    return this.#index;
  }

  requireWrite(): void {
    if (!this.write)
      throw new LivesnapError('READ_ONLY', `the store ${this.dir} is open for reading only`, {
        hint: 'Use a store that you own, on a file system that is mounted for writing.',
      });
  }

  lock(mode: 'shared' | 'exclusive'): Promise<StoreLock> {
    return StoreLock.acquire(this.dir, mode);
  }

  /** Runs synchronous work with the lock held. */
  withLock<T>(work: () => T): T {
    const lock = StoreLock.acquireSync(this.dir, 'shared');
    try {
      return work();
    } catch (error) {
      throw storeError(this.dir, error);
    } finally {
      lock.release();
    }
  }

  /** The packs of the index. The generation of each is looked up when it is first used. */
  packSet(cachedFrames?: number): PackSet {
    return new PackSet(this.ops, this.dir, (number) => this.index.generationOf(number), cachedFrames);
  }

  /** Runs work, and turns errors of the system and SQLite into LivesnapError. */
  async guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw storeError(this.dir, error);
    }
  }

  close(): void {
    this.#index?.close();
    this.#index = null;
  }
}

/** Packs in the form that a page Worker receives. */
export function packList(packs: readonly PackRow[]): PackList {
  const list = new Uint32Array(packs.length * 2);
  packs.forEach(({ number, generation }, i) => {
    list[2 * i] = number;
    list[2 * i + 1] = generation;
  });
  return list;
}
