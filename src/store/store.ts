/**
 * The store: a directory of packs, manifests and snapshots with an SQLite index (docs/format.md).
 *
 * This class is the whole public interface of src/store, except for copies between stores (remote/). It belongs to the
 * thread that opened it. The work of each verb is in the file of its name.
 *
 * Invariant: a method that fails leaves the store as it was.
 */
import type { Readable, Writable } from 'node:stream';
import { LivesnapError } from '../errors.js';
import { nounFor } from '../format.js';
import { isGlob, matchesGlob } from '../glob.js';
import { trimHeap } from '../native/heap.js';
import { pageOps, withFingerprintBits } from '../native/pages.js';
import type { OpenSnapshot, Region, SavedRegion, SaveSession, SaveTarget } from '../page-stream.js';
import { checkStore } from './check.js';
import { StoreContext } from './context.js';
import type { Channel } from './copy/channel.js';
import type { CopyResult, ReceiveOptions, SendOptions } from './copy/copy-result.js';
import { receiveSnapshot } from './copy/destination-end.js';
import { LocalReader } from './copy/local-reader.js';
import { sendSnapshot } from './copy/source-end.js';
import { diffSnapshots } from './diff.js';
import { at, fsyncDirectory, SNAPSHOT_ID, SNAPSHOTS, storeError, TAG_LABEL } from './disk/layout.js';
import { noteMissingLocks, requireLocksToWrite } from './disk/locking.js';
import type { FileName } from './file/file-names.js';
import { diskRegionOf, fileRegionOf } from './file/file-regions.js';
import { getFile, type PutOptions, putFile } from './file/file-snapshots.js';
import { collectGarbage, type GcOptions, type GcResult } from './gc/gc.js';
import { mergeNewest } from './gc/segment-merge.js';
import { unlinkUnlisted } from './gc/unlisted-files.js';
import { openIndex, requireRepairable } from './open-store.js';
import { discardIdleSlots } from './pack/frame-encoder.js';
import { mapPages } from './page-map.js';
import { type RepairOptions, repairStore } from './repair/repair.js';
import { Save } from './save/save.js';
import { snapshotFile } from './snapshot/snapshot-file.js';
import { snapshotDetails, storeStats } from './statistics.js';
import { StoredSnapshot } from './stored-snapshot.js';
import { requireTagLabel, requireTagLabels, syncTagFiles } from './tags.js';
import type {
  CheckOptions,
  PageMap,
  PageMapOptions,
  Problem,
  Progress,
  RegionDifference,
  RemovedSnapshot,
  RepairResult,
  SaveResult,
  SnapshotDetails,
  SnapshotSummary,
  StoreStats,
  Tag,
  TaggedSnapshot,
} from './types.js';
import { uniqueBytesOfAll } from './unique-bytes.js';
import { discardIdleBatches, releasePageWorkers, usePageWorkers } from './worker/page-pool.js';

export type { OpenSnapshot, SaveSession };

export interface OpenOptions {
  /** False: the store is never changed, and may be on a read-only file system. */
  readonly write: boolean;
  /** Create the store if it does not exist. */
  readonly create?: boolean;
  /** No other process uses the store: it may be written without locks where there are none (disk/locking.ts). */
  readonly isPrivate?: boolean;
  /** Only for tests: shorter fingerprints, which collide. All fingerprints of a store have the same length. */
  readonly fingerprintBits?: number;
  /** Only for tests and benchmarks: the ID of the digests of new packs. */
  readonly digest?: number;
}

export class Store implements SaveTarget {
  readonly #context: StoreContext;
  #open = true;

  private constructor(context: StoreContext) {
    this.#context = context;
    usePageWorkers();
  }

  /**
   * Opens the store in `dir`. Errors: USAGE, NO_SUCH_FILE, NOT_A_STORE, NEWER_FORMAT, READ_ONLY, NO_PERMISSION,
   * NO_SPACE, DAMAGED.
   */
  static open(
    dir: string,
    { write, create = false, isPrivate = false, fingerprintBits = 64, digest }: OpenOptions,
  ): Store {
    if (write && !isPrivate) requireLocksToWrite(dir);
    if (!write) noteMissingLocks();
    const index = openIndex(dir, write, create);
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    return new Store(new StoreContext(dir, write, index, ops, fingerprintBits, digest));
  }

  /**
   * Rebuilds the index of the store in `dir` from its files, and heals damaged chunks of which there is a copy. Errors:
   * USAGE, NO_SUCH_FILE, NOT_A_STORE, NEWER_FORMAT, STORE_BUSY, READ_ONLY, NO_PERMISSION, NO_SPACE.
   */
  static async repair(dir: string, progress?: Progress, options: RepairOptions = {}): Promise<RepairResult> {
    requireLocksToWrite(dir);
    requireRepairable(dir);
    return repairStore(dir, options, progress);
  }

  /**
   * Gives memory that this thread keeps for its next save back to the kernel. That save takes it again. It takes a few
   * milliseconds.
   */
  static trimMemory(): void {
    if (pageOps.name !== 'native') return;
    discardIdleSlots();
    discardIdleBatches();
    trimHeap();
  }

  get dir(): string {
    return this.#context.dir;
  }

  get key(): string {
    return this.#context.key;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#context.close();
    releasePageWorkers();
  }

  /** All snapshots, oldest first. */
  list(): SnapshotSummary[] {
    return this.#context.index.summaries();
  }

  /**
   * The ID of the snapshot that `ref` names: a tag, an ID, or a unique prefix of an ID, in this order. A whole ID only
   * ever names the snapshot with that ID. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS.
   */
  resolve(ref: string): string {
    const { index } = this.#context;
    if (SNAPSHOT_ID.test(ref)) {
      if (index.has(ref)) return ref;
      throw this.#noSuchSnapshot(ref);
    }
    const tagged = TAG_LABEL.test(ref) ? index.taggedAs(ref) : undefined;
    if (tagged) return tagged;
    const ids = /^[0-9a-f]{1,31}$/.test(ref) ? index.idsBeginningWith(ref) : [];
    if (ids.length === 1) return ids[0]!;
    if (ids.length === 0) throw this.#noSuchSnapshot(ref);
    throw new LivesnapError('AMBIGUOUS', `ambiguous snapshot ID prefix ${JSON.stringify(ref)}`, {
      hint: `Give more digits: ${ids.join(', ')}${ids.length > 2 ? ' and others' : ''}.`,
    });
  }

  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS. */
  find(ref: string): SnapshotSummary {
    const id = this.resolve(ref);
    const summary = this.#context.index.summary(id);
    if (!summary) throw this.#noSuchSnapshot(id); // another process has removed it since
    return summary;
  }

  #noSuchSnapshot(ref: string): LivesnapError {
    return new LivesnapError('NO_SUCH_SNAPSHOT', `no snapshot ${JSON.stringify(ref)} in ${this.dir}`, {
      hint: 'livesnap ls lists the snapshots.',
    });
  }

  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED. */
  show(ref: string): SnapshotDetails {
    return this.#context.withLock(() => snapshotDetails(this.#context, this.find(ref)));
  }

  /**
   * Which pages differ between two snapshots, by region. `regions`: compares only these, of the first and of the second
   * snapshot (diffSnapshots). Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, NO_SUCH_REGION, DAMAGED.
   */
  diff(
    a: string,
    b: string,
    [regionOfA, regionOfB]: readonly [string | null, string | null] = [null, null],
  ): RegionDifference[] {
    return this.#context.withLock(() =>
      diffSnapshots(
        this.#context,
        { id: this.resolve(a), region: regionOfA },
        { id: this.resolve(b), region: regionOfB },
      ),
    );
  }

  /**
   * What the pages of a region are. Damage of pages is in the result, not an error. Errors: USAGE, NO_SUCH_SNAPSHOT,
   * AMBIGUOUS, NO_SUCH_REGION, DAMAGED (the file of the snapshot).
   */
  map(ref: string, options: PageMapOptions, progress?: Progress): Promise<PageMap> {
    return mapPages(this.#context, (other) => this.find(other ?? ref), options, progress);
  }

  /**
   * What `rm` of each snapshot alone and gc would free, by ID. Null: the snapshot is damaged. Errors: the signal's reason.
   */
  uniqueBytesOfAll(signal?: AbortSignal, progress?: Progress): Promise<Map<string, number | null>> {
    return uniqueBytesOfAll(this.#context, signal, progress);
  }

  /** Errors: DAMAGED when a snapshot cannot be read. */
  stats(): StoreStats {
    return this.#context.withLock(() => storeStats(this.#context));
  }

  /**
   * Adds tags to a snapshot. A tag that names another snapshot moves. Errors: USAGE, NO_SUCH_SNAPSHOT, AMBIGUOUS,
   * READ_ONLY, NO_SPACE.
   */
  addTags(ref: string, tags: readonly string[]): TaggedSnapshot {
    const context = this.#context;
    context.requireWrite();
    const labels = requireTagLabels(tags);
    return context.withLock(() => {
      const id = this.resolve(ref);
      requireTagLabels([...context.index.tagsOf(id), ...labels]);
      const tagged = context.index.addTags(id, labels);
      if (tagged === null) throw this.#noSuchSnapshot(ref); // another process has removed it since
      syncTagFiles(context, labels);
      return tagged;
    });
  }

  /**
   * Removes tags and keeps their snapshots: all of the tags, or none when one does not exist. `of`: a tag of any other
   * snapshot than that with this ID counts as one that does not exist. Errors: USAGE, NO_SUCH_TAG, READ_ONLY.
   */
  removeTags(tags: readonly string[], of?: string): Tag[] {
    const context = this.#context;
    context.requireWrite();
    const labels = [...new Set(tags)];
    for (const label of labels) requireTagLabel(label);
    return context.withLock(() => {
      const removed = context.index.removeTags(labels, of).map((tag, i) => {
        if (tag === null) throw this.#noSuchTag(labels[i]!, of);
        return tag;
      });
      syncTagFiles(context, labels);
      return removed;
    });
  }

  #noSuchTag(label: string, of?: string): LivesnapError {
    const holder = of === undefined ? `in ${this.dir}` : `on snapshot ${of}`;
    return new LivesnapError('NO_SUCH_TAG', `no tag ${JSON.stringify(label)} ${holder}`, {
      hint: 'livesnap ls lists the tags.',
    });
  }

  /**
   * Removes all of the snapshots with all of their tags, or none when one cannot be found. A name with `*` or `?` is a
   * pattern of tags. A tag counts as the name of its snapshot only if the snapshot has no other tags but those given. gc
   * deletes the data that they no longer reference. `dryRun`: returns what would be removed. Errors: NO_SUCH_SNAPSHOT,
   * NO_SUCH_TAG (no tag matches a pattern), AMBIGUOUS, HAS_OTHER_TAGS, READ_ONLY.
   */
  remove(refs: readonly string[], { dryRun = false }: { dryRun?: boolean } = {}): RemovedSnapshot[] {
    return this.#remove(() => this.#toRemove(this.#expand(refs)), dryRun);
  }

  /**
   * Removes the snapshots whose IDs `choose` returns, with all of their tags, or none when it throws. It is given all
   * snapshots, oldest first, as they are within the transaction: what another process saves, tags or removes is there
   * or comes later, and nothing is removed for a reason that no longer holds. Errors: those of `choose`, READ_ONLY.
   */
  removeChosen(
    choose: (all: readonly SnapshotSummary[]) => readonly string[],
    { dryRun = false }: { dryRun?: boolean } = {},
  ): RemovedSnapshot[] {
    return this.#remove(() => choose(this.list()), dryRun);
  }

  #remove(choose: () => readonly string[], dryRun: boolean): RemovedSnapshot[] {
    const context = this.#context;
    if (dryRun) return choose().map((id) => ({ id, tags: context.index.tagsOf(id) }));
    context.requireWrite();
    return context.withLock(() => {
      const removed = context.index.removeSnapshots(choose);
      this.#unlinkRemoved(removed.map(({ id }) => id));
      syncTagFiles(
        context,
        removed.flatMap(({ tags }) => tags),
      );
      fsyncDirectory(at(context.dir, SNAPSHOTS));
      return removed;
    });
  }

  /**
   * The IDs of the snapshots that `refs` name, each once. A name with `*` or `?` is a pattern of tags. Errors:
   * NO_SUCH_SNAPSHOT, NO_SUCH_TAG (no tag matches a pattern), AMBIGUOUS.
   */
  resolveAll(refs: readonly string[]): string[] {
    return [...new Set(this.#expand(refs).map((ref) => this.resolve(ref)))];
  }

  /** Replaces patterns by the tags that match. Errors: NO_SUCH_TAG, USAGE. */
  #expand(refs: readonly string[]): string[] {
    // A program in JavaScript may give a text.
    if (!Array.isArray(refs))
      throw new LivesnapError('USAGE', 'the snapshots are not a list', { hint: "Example: ['first']." });
    if (!refs.some(isGlob)) return [...refs];
    const all = this.#context.index.tags().map(({ label }) => label);
    return refs.flatMap((ref) => {
      if (!isGlob(ref)) return [ref];
      const matching = all.filter((tag) => matchesGlob(ref, tag));
      if (matching.length > 0) return matching;
      throw new LivesnapError('NO_SUCH_TAG', `no tag in ${this.dir} matches ${JSON.stringify(ref)}`, {
        hint: 'livesnap ls lists the tags.',
      });
    });
  }

  /** The IDs that `refs` name. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, HAS_OTHER_TAGS. */
  #toRemove(refs: readonly string[]): string[] {
    const named = refs.map((ref) => ({ ref, id: this.resolve(ref) }));
    const ids = [...new Set(named.map(({ id }) => id))];
    for (const id of ids) {
      const tags = this.#context.index.tagsOf(id);
      const given = new Set(named.filter((one) => one.id === id).map(({ ref }) => ref));
      const others = tags.filter((tag) => !given.has(tag));
      if (others.length > 0 && [...given].every((ref) => tags.includes(ref)))
        throw hasOtherTags(id, [...given], others);
    }
    return ids;
  }

  /**
   * Deletes the files of removed snapshots. A file that is being read is left to gc. A file stays if a copy has brought
   * the snapshot back meanwhile.
   */
  #unlinkRemoved(ids: readonly string[]): void {
    const context = this.#context;
    try {
      unlinkUnlisted(
        context,
        ids.map((id) => ({ path: at(context.dir, snapshotFile(id)), isListed: () => context.index.has(id) })),
      );
    } catch (error) {
      // The snapshots are removed already. Deleting a file safely needs a little space; without it, gc deletes them.
      const known = storeError(context.dir, error);
      if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) throw known;
    }
  }

  /** Deletes unreferenced data. Errors: STORE_BUSY, READ_ONLY, DAMAGED. */
  async gc(options: GcOptions, progress?: Progress): Promise<GcResult> {
    this.#context.index.requireValidRows();
    return collectGarbage(this.#context, options, progress);
  }

  /** Looks for damage. Damage is a problem in the result, not an error. */
  check(options: CheckOptions, progress?: Progress): Promise<{ ok: boolean; problems: Problem[] }> {
    return checkStore(this.#context, options, progress);
  }

  /**
   * Begins a save, each region relative to its base; the session says which (SaveTarget.beginSave). Errors: USAGE (an
   * invalid tag), READ_ONLY, NO_SPACE, STORE_BUSY.
   */
  async beginSave({
    regions,
    tags = [],
  }: {
    regions: readonly SavedRegion[];
    tags?: readonly string[];
  }): Promise<SaveSession> {
    requireTagLabels(tags);
    return Save.begin(this.#context, regions);
  }

  /**
   * Upkeep after saves: merges small segments, completes rows of an older index, and empties SQLite's log. Call it when the save has been answered. gc
   * does the same, so the store works without it: a failure is returned, not thrown.
   */
  async tidy(): Promise<LivesnapError | null> {
    const context = this.#context;
    try {
      await context.guarded(async () => {
        const lock = await context.lock('shared');
        try {
          await mergeNewest(context);
          context.index.fillLabels();
          context.index.checkpoint();
        } finally {
          lock.release();
        }
      });
      return null;
    } catch (error) {
      if (error instanceof LivesnapError) return error;
      throw error;
    }
  }

  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, NEWER_FORMAT. */
  openSnapshot(ref: string): Promise<OpenSnapshot> {
    return StoredSnapshot.open(this.#context, () => this.resolve(ref));
  }

  /** Sends a snapshot to another store. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, REMOTE_FAILED. */
  async sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult> {
    const context = this.#context;
    const reader = new LocalReader(await StoredSnapshot.open(context, () => this.resolve(ref)));
    try {
      return await context.guarded(() => sendSnapshot(channel, reader, options));
    } finally {
      reader.close();
    }
  }

  /** Receives a snapshot from another store. Errors: READ_ONLY, NO_SPACE, STORE_BUSY, REMOTE_FAILED. */
  async receiveCopy(channel: Channel, options: ReceiveOptions): Promise<CopyResult> {
    const context = this.#context;
    context.requireWrite();
    return context.guarded(() => receiveSnapshot(channel, context, options));
  }

  /**
   * Stores a file or a stream as a snapshot of kind `file`. Errors: NO_SUCH_FILE, USAGE, NO_PERMISSION, SYSTEM (the
   * source cannot be read), and those of a save.
   */
  put(input: FileName | Readable, options: PutOptions, progress?: Progress): Promise<SaveResult> {
    return putFile(this.#context, input, options, progress);
  }

  /**
   * Writes the file in a snapshot of kind `file`, or the only disk of one of kind `disk`, to a path or a stream. A
   * regular file appears only when it is complete. FIFOs, character devices and open descriptors (/dev/fd/N) are written
   * to directly. Errors: those of `openSnapshot`, USAGE, NO_SUCH_FILE, NO_SPACE, READ_ONLY, SYSTEM.
   */
  get(
    ref: string,
    to: FileName | Writable,
    progress?: Progress,
    signal?: AbortSignal,
  ): Promise<{ bytes: number }> {
    return this.#getRegion(ref, fileRegionOf, to, progress, signal);
  }

  /**
   * Writes disk `number` of a machine's snapshot, as {@link get} does. Null: its only disk. Errors: those of `get`,
   * NO_SUCH_REGION.
   */
  getDisk(
    ref: string,
    number: number | null,
    to: FileName | Writable,
    progress?: Progress,
    signal?: AbortSignal,
  ): Promise<{ bytes: number }> {
    return this.#getRegion(ref, (snapshot) => diskRegionOf(snapshot, number), to, progress, signal);
  }

  async #getRegion(
    ref: string,
    choose: (snapshot: StoredSnapshot) => Region,
    to: FileName | Writable,
    progress?: Progress,
    signal?: AbortSignal,
  ): Promise<{ bytes: number }> {
    const snapshot = await StoredSnapshot.open(this.#context, () => this.resolve(ref));
    try {
      return await getFile(snapshot, choose(snapshot), to, progress, signal);
    } finally {
      snapshot.close();
    }
  }
}

function hasOtherTags(id: string, given: readonly string[], others: readonly string[]): LivesnapError {
  const isOne = given.length === 1;
  return new LivesnapError(
    'HAS_OTHER_TAGS',
    `the snapshot tagged ${inWords(given)} also has the ${nounFor(others.length, 'tag')} ${inWords(others)}`,
    {
      hint:
        `To remove only the ${isOne ? 'tag' : 'tags'}: livesnap untag ${given.join(' ')}. ` +
        `To remove the snapshot with all its tags: livesnap rm ${id}.`,
    },
  );
}

/** `a`, `a and b`, `a, b and c`. */
const inWords = (names: readonly string[]): string =>
  names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
