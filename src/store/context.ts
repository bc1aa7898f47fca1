/** The state that the parts of an open store share: its directory, its index, its lock. */
import { realpathSync } from 'node:fs';
import { LivesnapError } from '../errors.js';
import type { PageOps } from '../native/pages.js';
import { LOCK, storeError } from './disk/layout.js';
import { StoreLock } from './disk/store-lock.js';
import type { Index } from './index/index-database.js';
import { DEFAULT_DIGEST } from './pack/digest.js';
import { PackSet } from './pack/pack-set.js';

export class StoreContext {
  /** Names the store within this process, whatever path it was opened by. */
  readonly key: string;
  #index: Index | null;

  constructor(
    readonly dir: string,
    readonly write: boolean,
    index: Index,
    readonly ops: PageOps,
    readonly fingerprintBits: number,
    /** The ID of the digests of new packs. */
    readonly digest: number = DEFAULT_DIGEST,
  ) {
    this.key = realpathSync(dir);
    this.#index = index;
  }

  get index(): Index {
    if (!this.#index) throw new LivesnapError('NOT_POSSIBLE_NOW', `the store ${this.dir} has been closed`);
    return this.#index;
  }

  requireWrite(): void {
    if (!this.write)
      throw new LivesnapError('READ_ONLY', `the store ${this.dir} was opened for reading`, {
        hint: 'Use a store on a file system mounted for writing, in a directory that is yours.',
      });
  }

  lock(mode: 'shared' | 'exclusive', signal?: AbortSignal): Promise<StoreLock> {
    return StoreLock.acquire(this.dir, mode, LOCK, signal);
  }

  /** Runs work with the lock held; for verbs that are synchronous. */
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

  /** The packs of the index, as it is when each is first asked for. */
  packSet(cachedFrames?: number): PackSet {
    return new PackSet(this.ops, this.dir, (number) => this.index.generationOf(number), cachedFrames);
  }

  /** Runs a part of an operation; what the system says becomes the project's own error. */
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
