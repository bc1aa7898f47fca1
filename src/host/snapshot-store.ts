/** The store of a host (docs/library.md). */
import type { CallOptions } from './call-options.js';
import { Snapshot } from './snapshot.js';
import { StoreVerbs } from './store-verbs.js';

export class SnapshotStore extends StoreVerbs {
  /** One snapshot, as an object. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, and those of opening a store. */
  async get(snapshot: string, options: CallOptions = {}): Promise<Snapshot> {
    return new Snapshot(this, await this.find(snapshot, options));
  }
}
