/**
 * What can be done with a store and its snapshots. A snapshot is named by a tag, an ID or a unique prefix of an ID.
 *
 * Invariant: the store is open only during a call. So this object keeps neither repair nor gc from their work.
 */
import type { Readable, Writable } from 'node:stream';
import { LivesnapError } from '../errors.js';
import { note } from '../notes.js';
import type { SaveResult, SnapshotSummary } from '../page-stream.js';
import type { CopyPlan, CopyResult } from '../store/copy/copy-result.js';
import type { GcResult, GcOptions as StoreGcOptions } from '../store/gc/gc.js';
import type { CopyAllResult } from '../store/remote/copy-all.js';
import type { Store } from '../store/store.js';
import type {
  PageMap,
  PageMapOptions,
  Problem,
  RegionDifference,
  RemovedSnapshot,
  RepairResult,
  SnapshotDetails,
  CheckOptions as StoreCheckOptions,
  StoreStats,
  Tag,
  TaggedSnapshot,
} from '../store/types.js';
import type { FitFinding } from '../vmm/fit/compare.js';
import type { HostProfile } from '../vmm/fit/host-profile.js';
import { type CallOptions, cancellable, type LongCallOptions } from './call-options.js';
import type { ForgetGroup, GroupKey, KeepRules } from './forget-policy.js';
import { loadStore, withStore } from './open-store.js';
import type { SnapshotChoice, SnapshotOrder } from './snapshot-filter.js';

export interface GcOptions
  extends LongCallOptions,
    Pick<StoreGcOptions, 'maxRepackBytes' | 'recompress' | 'idle' | 'endEarly'> {
  /** Change nothing, and resolve to what would be removed and freed. */
  readonly dryRun?: boolean | undefined;
}

export interface CheckOptions extends LongCallOptions {
  /** Also read the data: all of it, or the part of it that was read longest ago. Default: false. */
  readonly readData?: StoreCheckOptions['readData'] | undefined;
}

export interface CheckResult {
  readonly ok: boolean;
  readonly problems: Problem[];
  /** False: the store cannot be written, so it does not know which part was read. The next check reads the same one. */
  readonly isNoted: boolean;
}

export interface TransferOptions extends LongCallOptions {
  /** Called once for each snapshot, before its pages are sent. */
  readonly onPlan?: ((plan: CopyPlan) => void) | undefined;
}

export interface CopyOptions extends TransferOptions {
  /** Called with each line that ssh prints. The other host decides what it says. */
  readonly onNotice?: ((line: string) => void) | undefined;
}

export interface CopyAllOptions extends CopyOptions, SnapshotChoice {}

export interface ListOptions extends CallOptions, SnapshotChoice {
  /** Default: `created`, oldest first. */
  readonly sort?: SnapshotOrder | undefined;
  readonly reverse?: boolean | undefined;
  /** At most so many. */
  readonly limit?: number | undefined;
}

export interface ForgetOptions extends CallOptions, SnapshotChoice {
  /** Tags, patterns of tags, IDs or prefixes of IDs: no others are considered. Default: all are. */
  readonly snapshots?: readonly string[] | undefined;
  /** Default: by machine. */
  readonly groupBy?: readonly GroupKey[] | undefined;
  /** Remove nothing, and resolve to what would be removed. */
  readonly dryRun?: boolean | undefined;
}

/** The other store of a copy: a directory or an address. */
export type CopyRemote = { readonly to: string } | { readonly from: string };

export interface PutOptions extends LongCallOptions {
  /** A tag that another snapshot has moves to this one. */
  readonly tags?: readonly string[] | undefined;
  /** Default: the base name of the file. */
  readonly name?: string | undefined;
}

export interface PutResult extends SaveResult {
  readonly saveMs: number;
}

/** One side of a comparison: a snapshot, or one region of it. */
export interface DiffOperand {
  readonly snapshot: string;
  readonly region?: string | null | undefined;
}

export interface MapOptions extends LongCallOptions, Omit<PageMapOptions, 'signal'> {}

/** A path, or its bytes where it may not be UTF-8. */
export type FileName = string | Buffer;

export class StoreVerbs {
  /** `dir`: absolute. */
  constructor(readonly dir: string) {}

  /** Facts about a snapshot. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, and those of opening a store. */
  find(snapshot: string, options: CallOptions = {}): Promise<SnapshotSummary> {
    return this.#read(options, (store) => store.find(snapshot));
  }

  /**
   * Facts about snapshots: those that pass, in the order asked for. Default: all, oldest first. Errors: USAGE,
   * NO_SUCH_SNAPSHOT and AMBIGUOUS (a parent).
   */
  async list(options: ListOptions = {}): Promise<SnapshotSummary[]> {
    const { sort = 'created', reverse = false, limit = Number.POSITIVE_INFINITY } = options;
    if (!(limit >= 0))
      throw new LivesnapError('USAGE', `${limit} is not a limit`, { hint: 'Use 0 or more.' });
    const all = await cancellable(options, async () => {
      const { listSnapshots } = await import('../store/list.js');
      return listSnapshots(this.dir);
    });
    const { chooseSnapshots, sortSnapshots } = await import('./snapshot-filter.js');
    const sorted = sortSnapshots(chooseSnapshots(all, options), sort);
    if (reverse) sorted.reverse();
    return sorted.slice(0, limit);
  }

  /** All facts about a snapshot. Errors: as of {@link find}, DAMAGED. */
  details(snapshot: string, options: CallOptions = {}): Promise<SnapshotDetails> {
    return this.#read(options, (store) => store.show(snapshot));
  }

  /**
   * What `remove` of each snapshot alone and gc would free, by ID; as `uniqueBytes` of {@link details}, in one pass.
   * Null: the snapshot is damaged.
   */
  uniqueBytes({ onProgress, signal }: LongCallOptions = {}): Promise<Map<string, number | null>> {
    return this.#read({ signal }, (store) => store.uniqueBytesOfAll(signal, onProgress));
  }

  /** Errors: DAMAGED when a snapshot cannot be read. */
  stats(options: CallOptions = {}): Promise<StoreStats> {
    return this.#read(options, (store) => store.stats());
  }

  /** Adds tags to a snapshot. A tag that another one has moves. Errors: as of {@link find}, USAGE, READ_ONLY. */
  tag(snapshot: string, tags: readonly string[], options: CallOptions = {}): Promise<TaggedSnapshot> {
    return this.#write(options, (store) => store.addTags(snapshot, tags));
  }

  /**
   * Removes tags, and keeps their snapshots: all of the tags, or none when one does not exist. `of`: the ID of the only
   * snapshot that may lose tags. Errors: NO_SUCH_TAG, USAGE, READ_ONLY.
   */
  untag(
    tags: readonly string[],
    { of, ...options }: CallOptions & { readonly of?: string | undefined } = {},
  ): Promise<Tag[]> {
    return this.#write(options, (store) => store.removeTags(tags, of));
  }

  /**
   * Removes snapshots with all of their tags: all of them, or none when one cannot be found. A tag names a snapshot
   * only if the snapshot has no other tags but those given. A name with `*` or `?` is a pattern of tags. Errors: as of
   * {@link find}, HAS_OTHER_TAGS, NO_SUCH_TAG, READ_ONLY.
   */
  remove(
    snapshots: readonly string[],
    { dryRun = false, ...options }: CallOptions & { readonly dryRun?: boolean | undefined } = {},
  ): Promise<RemovedSnapshot[]> {
    return cancellable(options, () =>
      withStore(this.dir, { write: !dryRun }, (store) => store.remove(snapshots, { dryRun })),
    );
  }

  /**
   * Removes the snapshots that no rule keeps, in groups, or nothing if it fails. What another process tags meanwhile
   * counts. Resolves to what was kept, with the reasons, and what was removed. Errors: USAGE (no rule), NO_SUCH_SNAPSHOT,
   * NO_SUCH_TAG, AMBIGUOUS, READ_ONLY.
   */
  forget(
    rules: KeepRules,
    { snapshots = [], groupBy = [{ by: 'machine' }], dryRun = false, signal, ...choice }: ForgetOptions = {},
  ): Promise<ForgetGroup[]> {
    return cancellable({ signal }, async () => {
      const { requireRule } = await import('./forget-policy.js');
      requireRule(rules); // before the store is looked for
      const { forgetSnapshots } = await import('./forget.js');
      return withStore(this.dir, { write: !dryRun }, (store) =>
        forgetSnapshots(store, { ...choice, refs: snapshots, rules, groupBy, dryRun }),
      );
    });
  }

  /**
   * Which pages differ, by region. If a region is named, only that one is compared: with the one named for the other
   * side, or else the only region of a file, or the one of the same name. Errors: as of {@link find}, NO_SUCH_REGION,
   * DAMAGED.
   */
  diff(a: DiffOperand, b: DiffOperand, options: CallOptions = {}): Promise<RegionDifference[]> {
    const regions = [a.region ?? null, b.region ?? null] as const;
    return this.#read(options, (store) => store.diff(a.snapshot, b.snapshot, regions));
  }

  /**
   * What of a snapshot of a machine does not fit a host. Default: this one. It can be restored there unless a finding has
   * the level `refuse`. Errors: as of {@link find}, USAGE (not of a machine), NO_KVM.
   */
  fit(
    snapshot: string,
    { host, ...options }: CallOptions & { readonly host?: HostProfile | undefined } = {},
  ): Promise<{ readonly id: string; readonly findings: readonly FitFinding[] }> {
    return this.#read(options, async (store) => {
      const opened = await store.openSnapshot(snapshot);
      try {
        const { summary, metadata } = opened;
        if (metadata.kind !== 'machine')
          throw new LivesnapError('USAGE', `snapshot ${snapshot} holds a file, not a machine`, {
            hint: 'Only snapshots of machines depend on a host.',
          });
        const { fitOf } = await import('../vmm/fit/snapshot-fit.js');
        const { profileOfThisHost } = await import('../vmm/fit/this-host.js');
        return { id: summary.id, findings: fitOf(metadata, host ?? profileOfThisHost()) };
      } finally {
        opened.close();
      }
    });
  }

  /** What the pages of a region are. Damage of pages is in the result. Errors: as of {@link find}, NO_SUCH_REGION. */
  map(snapshot: string, { onProgress, ...options }: MapOptions = {}): Promise<PageMap> {
    return this.#read(options, (store) => store.map(snapshot, options, onProgress));
  }

  /**
   * Deletes unreferenced data. If it is cancelled, the pack that is being rewritten is the last one, and what was freed
   * stays freed. Errors: STORE_BUSY (another gc), READ_ONLY, DAMAGED (nothing was deleted).
   */
  gc({ dryRun = false, onProgress, ...options }: GcOptions = {}): Promise<GcResult> {
    const asked = { ...options, dryRun };
    return cancellable(options, () =>
      withStore(this.dir, { write: !dryRun }, (store) => store.gc(asked, onProgress)),
    );
  }

  /** Looks for damage. Damage is a problem in the result, not an error. */
  async check({ readData = false, onProgress, signal }: CheckOptions = {}): Promise<CheckResult> {
    const check = (write: boolean) =>
      cancellable({ signal }, () =>
        withStore(this.dir, { write }, (store) => store.check({ readData, signal }, onProgress)),
      );
    const isPart = typeof readData === 'object';
    // A store that can be written remembers which parts were read.
    try {
      return { ...(await check(readData !== false)), isNoted: true };
    } catch (error) {
      if (!(error instanceof LivesnapError && UNWRITABLE.has(error.code))) throw error;
    }
    return { ...(await check(false)), isNoted: !isPart };
  }

  /**
   * Rebuilds the index from the files beside it, and heals damaged data of which there is a copy. If it is cancelled
   * while it reads, nothing is changed. Errors: STORE_BUSY (another process uses the store), NOT_A_STORE, READ_ONLY.
   */
  repair({ signal, onProgress }: LongCallOptions = {}): Promise<RepairResult> {
    return cancellable({ signal }, async () => {
      const { Store } = await loadStore();
      return Store.repair(this.dir, onProgress, { signal });
    });
  }

  /**
   * Copies snapshots to or from another store. If it is cancelled or fails, the next copy resumes it. Errors: USAGE,
   * REMOTE_FAILED, as of {@link find}, and those of both stores.
   */
  copy(snapshots: readonly string[], remote: CopyRemote, options: CopyOptions = {}): Promise<CopyResult[]> {
    return cancellable(options, async () => {
      const { copySnapshots } = await import('../store/remote/copy.js');
      return copySnapshots({ ...this.#copyOf(remote, options), refs: snapshots });
    });
  }

  /**
   * Copies all snapshots of the source that pass, parents first. One that cannot be copied is in the result, and does
   * not keep the others from being copied. Errors: those before the first snapshot.
   */
  copyAll(
    remote: CopyRemote,
    { filters, sinceMs, untilMs, ...options }: CopyAllOptions = {},
  ): Promise<CopyAllResult> {
    return cancellable(options, async () => {
      const { copyAll } = await import('../store/remote/copy-all.js');
      const { chooseSnapshots } = await import('./snapshot-filter.js');
      return copyAll({
        ...this.#copyOf(remote, options),
        choose: (all) => chooseSnapshots(all, { filters, sinceMs, untilMs }),
      });
    });
  }

  #copyOf(remote: CopyRemote, options: CopyOptions) {
    const address = 'to' in remote ? remote.to : remote.from;
    if (typeof address !== 'string')
      throw new LivesnapError('USAGE', 'copy needs a store to copy to or from', {
        hint: "Example: { to: '/other/store' }.",
      });
    return {
      storeDir: this.dir,
      direction: 'to' in remote ? ('to' as const) : ('from' as const),
      remote: address,
      ...transferOf(options),
      onNotice: options.onNotice ?? (() => {}),
    };
  }

  /**
   * Makes `dir` a store with only this snapshot. If it is cancelled or fails, the next export to it resumes it. Errors:
   * USAGE (something is there), as of {@link find}, and those of a copy.
   */
  export(snapshot: string, dir: string, options: TransferOptions = {}): Promise<CopyResult> {
    return cancellable(options, async () => {
      const { exportSnapshot } = await import('../store/remote/export.js');
      return exportSnapshot({ storeDir: this.dir, ref: snapshot, to: dir, ...transferOf(options) });
    });
  }

  /** Copies all snapshots of an exported directory, which is not trusted. Errors: NOT_A_STORE, as of {@link copy}. */
  import(dir: string, options: TransferOptions = {}): Promise<CopyResult[]> {
    return cancellable(options, async () => {
      const { importSnapshots } = await import('../store/remote/export.js');
      return importSnapshots({ storeDir: this.dir, from: dir, ...transferOf(options) });
    });
  }

  /**
   * Stores a file or a stream, and creates the store if there is none. A stream that is read when the call is cancelled
   * is destroyed. Errors: NO_SUCH_FILE, USAGE, NO_PERMISSION, NO_SPACE, READ_ONLY.
   */
  put(
    input: FileName | Readable,
    { tags = [], name, signal, onProgress }: PutOptions = {},
  ): Promise<PutResult> {
    return cancellable({ signal }, async () => {
      if (isFileName(input)) {
        // Checked first: a missing file must not create a store.
        const { requireSource } = await import('../store/file/file-source.js');
        requireSource(input);
      }
      const startMs = performance.now();
      return withStore(this.dir, { write: true, create: true }, async (store) => {
        const saved = await store.put(input, { tags, name: name ?? null, signal }, onProgress);
        const saveMs = Math.round(performance.now() - startMs);
        const failure = await store.tidy();
        if (failure)
          note(
            `tidy ${saved.id}`,
            `the file is stored, but cleaning up the store failed: ${failure.message}`,
          );
        return { ...saved, saveMs };
      });
    });
  }

  /**
   * Writes a stored file, or the only disk of a snapshot of disks. A regular file appears, or is replaced, when it is
   * complete. A stream is ended only if this call opened it. Errors: as of {@link find}, USAGE, NO_SUCH_FILE, NO_SPACE,
   * READ_ONLY, DAMAGED.
   */
  writeFile(
    snapshot: string,
    to: FileName | Writable,
    { signal, onProgress }: LongCallOptions = {},
  ): Promise<{ bytes: number }> {
    return this.#extract(to, signal, (store) => store.get(snapshot, to, onProgress, signal));
  }

  /** Writes a disk of a machine, as {@link writeFile} does. Null: its only disk. Errors: NO_SUCH_REGION, too. */
  writeDisk(
    snapshot: string,
    number: number | null,
    to: FileName | Writable,
    { signal, onProgress }: LongCallOptions = {},
  ): Promise<{ bytes: number }> {
    return this.#extract(to, signal, (store) => store.getDisk(snapshot, number, to, onProgress, signal));
  }

  #extract<T>(
    to: FileName | Writable,
    signal: AbortSignal | undefined,
    work: (store: Store) => Promise<T>,
  ): Promise<T> {
    return cancellable({ signal }, async () => {
      if (isFileName(to)) {
        // Before the store is opened: later, the same descriptor number may belong to a file of the store.
        const { findTarget } = await import('../store/file/file-target.js');
        findTarget(to, this.dir);
      }
      return withStore(this.dir, { write: false }, work);
    });
  }

  #read<T>(options: CallOptions, work: (store: Store) => T | Promise<T>): Promise<T> {
    return cancellable(options, () => withStore(this.dir, { write: false }, work));
  }

  #write<T>(options: CallOptions, work: (store: Store) => T | Promise<T>): Promise<T> {
    return cancellable(options, () => withStore(this.dir, { write: true }, work));
  }
}

/** Errors of a store that can be read but not written. */
const UNWRITABLE = new Set<string>(['READ_ONLY', 'NO_PERMISSION']);

const isFileName = (value: unknown): value is FileName => typeof value === 'string' || Buffer.isBuffer(value);

const transferOf = ({ onPlan = () => {}, onProgress = () => {}, signal }: TransferOptions) => ({
  onPlan,
  progress: onProgress,
  signal,
});
