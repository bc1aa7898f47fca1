/**
 * The store: a directory of packs, manifests and snapshots with an SQLite index (docs/format.md).
 *
 * This is the whole of its public interface; each verb's work is in the module of its name. Every method leaves the
 * store as it was when it fails.
 */

import { chmodSync, existsSync, readdirSync, statSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import { LivesnapError } from '../errors.js';
import { pageOps, withFingerprintBits } from '../native/pages.js';
import type { OpenSnapshot, SaveSession, SaveTarget } from '../page-stream.js';
import { PAGE_BYTES } from '../page-stream.js';
import { checkStore } from './check.js';
import { StoreContext } from './context.js';
import type { Channel } from './copy/channel.js';
import type { CopyResult, ReceiveOptions, SendOptions } from './copy/copy-result.js';
import { receiveSnapshot } from './copy/destination-end.js';
import { LocalReader } from './copy/local-reader.js';
import { sendSnapshot } from './copy/source-end.js';
import { DamageError } from './disk/damage.js';
import {
  at,
  DATABASE,
  DIRECTORY_MODE,
  fillReserve,
  fsyncDirectory,
  INDEX_LOCK,
  LOCK,
  makeDirectory,
  makeMissingFolders,
  namesIn,
  PACKS,
  QUARANTINE,
  RESERVE,
  requireOwnFolders,
  requirePlainIndex,
  SEGMENTS,
  SNAPSHOT_ID,
  SNAPSHOTS,
  storeError,
  TAG_LABEL,
  TAGS,
} from './disk/layout.js';
import type { FileName } from './file/file-names.js';
import { getFile, putFile } from './file/file-snapshots.js';
import { collectGarbage, directoryBytes, type GcOptions, type GcResult, orphanBytes } from './gc/gc.js';
import { markAll } from './gc/marks.js';
import { mergeNewest } from './gc/segment-merge.js';
import { unlinkUnlisted } from './gc/unlisted-files.js';
import { Index } from './index/index-database.js';
import { notAStore, requireShortPath } from './index/index-files.js';
import { finishReplacement } from './index/index-replacement.js';
import { repairStore } from './repair/repair.js';
import { Save } from './save/save.js';
import { readNamed, snapshotFile } from './snapshot/snapshot-file.js';
import { bytesOfChunks, Usage } from './snapshot/usage.js';
import { StoredSnapshot } from './stored-snapshot.js';
import { requireTagLabel, syncTagFiles } from './tags.js';
import type {
  CheckOptions,
  Problem,
  Progress,
  RepairResult,
  SaveResult,
  SnapshotDetails,
  SnapshotSummary,
  StoreStats,
  TagMove,
} from './types.js';
import { releasePageWorkers, usePageWorkers } from './worker/page-pool.js';

export type { OpenSnapshot, SaveSession };

export interface OpenOptions {
  /** False: nothing in the store is changed, and it may be on a read-only file system. */
  readonly write: boolean;
  /** Make the store when there is none. */
  readonly create?: boolean;
  /** For tests: fingerprints are cut to so many bits, and so collide. All of a store has the same. */
  readonly fingerprintBits?: number;
}

export class Store implements SaveTarget {
  readonly #context: StoreContext;
  #open = true;

  private constructor(context: StoreContext) {
    this.#context = context;
    usePageWorkers();
  }

  /** Opens the store in `dir`. Errors: USAGE, NO_SUCH_FILE, NOT_A_STORE, NEWER_FORMAT, READ_ONLY, NO_PERMISSION, NO_SPACE, DAMAGED. */
  static open(dir: string, { write, create = false, fingerprintBits = 64 }: OpenOptions): Store {
    const index = openIndex(dir, write, create);
    const ops = withFingerprintBits(pageOps, fingerprintBits);
    return new Store(new StoreContext(dir, write, index, ops, fingerprintBits));
  }

  /**
   * Rebuilds the index of the store in `dir` from its files; `actions` say what was done and found.
   * Errors: USAGE, NO_SUCH_FILE, NOT_A_STORE, NEWER_FORMAT, STORE_BUSY, READ_ONLY, NO_PERMISSION, NO_SPACE.
   */
  static async repair(
    dir: string,
    progress?: Progress,
    options: Pick<OpenOptions, 'fingerprintBits'> = {},
  ): Promise<RepairResult> {
    try {
      if (!statSync(dir, { throwIfNoEntry: false })) throw noSuchStore(dir);
      requireOwnFolders(dir);
      requireShortPath(dir);
    } catch (error) {
      throw storeError(dir, error);
    }
    return repairStore(dir, options, progress);
  }

  get dir(): string {
    return this.#context.dir;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#context.close();
    releasePageWorkers();
  }

  /** Every snapshot, oldest first. */
  list(): SnapshotSummary[] {
    return this.#context.index.summaries();
  }

  /**
   * The id that `ref` (a tag, else an id, else a unique prefix of one) names. A whole id names that snapshot and no
   * other, whatever the store holds. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS.
   */
  resolve(ref: string): string {
    const { index } = this.#context;
    if (SNAPSHOT_ID.test(ref)) {
      if (index.has(ref)) return ref;
      throw noSuchSnapshot(this.dir, ref);
    }
    const tagged = TAG_LABEL.test(ref) ? index.taggedAs(ref) : undefined;
    if (tagged) return tagged;
    const ids = /^[0-9a-f]{1,31}$/.test(ref) ? index.idsBeginningWith(ref) : [];
    if (ids.length === 1) return ids[0]!;
    if (ids.length === 0) throw noSuchSnapshot(this.dir, ref);
    throw new LivesnapError(
      'AMBIGUOUS',
      `${JSON.stringify(ref)} is the beginning of more than one snapshot's id`,
      {
        hint: `Give more digits: ${ids.join(', ')}${ids.length > 2 ? ' and others' : ''}.`,
      },
    );
  }

  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS. */
  find(ref: string): SnapshotSummary {
    return required(this.#context, this.resolve(ref));
  }

  /** Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED. */
  show(ref: string): SnapshotDetails {
    const context = this.#context;
    return context.withLock(() => {
      const summary = required(context, this.resolve(ref));
      const file = readNamed(context.dir, summary.id);
      const { regions, machine, host } = file.description;
      const packs = context.packSet();
      let uniqueBytes = file.sizeBytes;
      try {
        const own = new Usage(packs);
        own.addSnapshot(file);
        const others = markAll(context, summary.id);
        for (const number of own.all.packs())
          uniqueBytes += bytesOfChunks(
            packs.pack(number),
            (chunk) => own.all.has(number, chunk) && !others.all.has(number, chunk),
          );
      } catch (error) {
        throw error instanceof DamageError ? error.in(summary.id) : error;
      } finally {
        packs.close();
      }
      return { ...summary, regions, uniqueBytes, machine, host };
    });
  }

  /** Errors: DAMAGED when it cannot be told what the snapshots need. */
  stats(): StoreStats {
    const context = this.#context;
    return context.withLock(() => {
      const { index, dir } = context;
      if (context.write) index.checkpoint();
      const usage = markAll(context);
      const { snapshots, logicalBytes, nonZeroPages } = index.totals();
      const packRows = index.packs();
      const packs = context.packSet();
      let deadBytes = orphanBytes(context);
      try {
        for (const { number } of packRows) {
          if (!packs.has(number)) continue; // gc has just removed it
          deadBytes += bytesOfChunks(packs.pack(number), (chunk) => !usage.all.has(number, chunk));
        }
      } finally {
        packs.close();
      }
      const data = [PACKS, SNAPSHOTS, TAGS, QUARANTINE];
      const isData = (name: string): boolean => data.includes(name);
      // -shm lives only as long as somebody has the index open.
      const indexBytes = directoryBytes(dir, (name) => !isData(name) && !name.endsWith('-shm'));
      const storedBytes = data
        .filter((name) => existsSync(at(dir, name)))
        .reduce((n, name) => n + directoryBytes(at(dir, name)), 0);
      return {
        snapshots,
        logicalBytes,
        nonZeroBytes: nonZeroPages * PAGE_BYTES,
        uniqueBytes: usage.pages.size * PAGE_BYTES,
        storedBytes,
        indexBytes,
        deadBytes,
        chunks: usage.pages.size,
        packs: packRows.length,
        ratio: logicalBytes / (storedBytes + indexBytes),
      };
    });
  }

  /** Makes `label` name the snapshot, and nothing else; a label the snapshot had before goes. Errors: USAGE, … */
  setTag(ref: string, label: string): TagMove & { id: string } {
    const context = this.#context;
    context.requireWrite();
    requireTagLabel(label);
    return context.withLock(() => {
      const id = this.resolve(ref);
      const move = context.index.setTag(id, label);
      syncTagFiles(context, move.replacedTag === null ? [label] : [label, move.replacedTag]);
      return { id, ...move };
    });
  }

  /** Removes snapshots; all are resolved before any is removed. Returns their ids. gc frees what they held. */
  remove(refs: readonly string[]): string[] {
    const context = this.#context;
    context.requireWrite();
    return context.withLock(() => {
      const ids = [...new Set(refs.map((ref) => this.resolve(ref)))];
      const labels = context.index.removeSnapshots(ids);
      this.#unlinkRemoved(ids);
      syncTagFiles(context, labels);
      fsyncDirectory(at(context.dir, SNAPSHOTS));
      return ids;
    });
  }

  /** One that somebody reads is left to gc; one that was copied back in between is another file of the same name. */
  #unlinkRemoved(ids: readonly string[]): void {
    const context = this.#context;
    try {
      unlinkUnlisted(
        context,
        ids.map((id) => ({ path: at(context.dir, snapshotFile(id)), isListed: () => context.index.has(id) })),
      );
    } catch (error) {
      // They have been removed. Where there is no room to unlink them safely, gc will.
      const known = storeError(context.dir, error);
      if (!(known instanceof LivesnapError && known.code === 'NO_SPACE')) throw known;
    }
  }

  /** Frees what no snapshot needs. Errors: STORE_BUSY, READ_ONLY, DAMAGED. */
  async gc(options: GcOptions, progress?: Progress): Promise<GcResult> {
    this.#context.index.requireValidRows();
    return collectGarbage(this.#context, options, progress);
  }

  check(options: CheckOptions, progress?: Progress): Promise<{ ok: boolean; problems: Problem[] }> {
    return checkStore(this.#context, options, progress);
  }

  /**
   * Begins a save relative to a snapshot’s id; full when `parent` is null or gone (see the session’s `parent`). A `tag` that it
   * could not be given is refused before anything is stored: USAGE.
   */
  async beginSave({
    parent,
    tag = null,
  }: {
    parent: string | null;
    tag?: string | null;
  }): Promise<SaveSession> {
    if (tag !== null) requireTagLabel(tag);
    return Save.begin(this.#context, parent);
  }

  /**
   * What is best done after saves, once they have been answered: few large segments in place of many small ones, and an
   * empty log. Nothing depends on it, and gc does it too; so what keeps it from being done is returned, not thrown.
   */
  async tidy(): Promise<LivesnapError | null> {
    const context = this.#context;
    try {
      await context.guarded(async () => {
        const lock = await context.lock('shared');
        try {
          await mergeNewest(context);
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

  /** Sends a snapshot to the store at the other end. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS, DAMAGED, REMOTE_FAILED. */
  async sendCopy(channel: Channel, ref: string, options: SendOptions): Promise<CopyResult> {
    const context = this.#context;
    const reader = new LocalReader(await StoredSnapshot.open(context, () => this.resolve(ref)));
    try {
      return await context.guarded(() => sendSnapshot(channel, reader, options));
    } finally {
      reader.close();
    }
  }

  /** Takes a snapshot from the store at the other end. Errors: READ_ONLY, NO_SPACE, STORE_BUSY, REMOTE_FAILED. */
  async receiveCopy(channel: Channel, options: ReceiveOptions): Promise<CopyResult> {
    const context = this.#context;
    context.requireWrite();
    return context.guarded(() => receiveSnapshot(channel, context, options));
  }

  /**
   * Stores a file (its path) or a stream of unknown length as a snapshot of kind `file`. Errors: NO_SUCH_FILE, USAGE,
   * SYSTEM (the source cannot be read), and those of a save.
   */
  put(
    input: FileName | Readable,
    options: { tag: string | null; name: string | null },
    progress?: Progress,
  ): Promise<SaveResult> {
    return putFile(this.#context, input, options, progress);
  }

  /**
   * Writes the file that a snapshot of kind `file` holds to a path, under that name only when it is whole, or to a
   * stream. A path may be of a FIFO, a character device or an open descriptor (/dev/fd/N): it is written to.
   */
  async get(ref: string, to: FileName | Writable, progress?: Progress): Promise<{ bytes: number }> {
    const snapshot = await StoredSnapshot.open(this.#context, () => this.resolve(ref));
    try {
      return await getFile(snapshot, to, progress);
    } finally {
      snapshot.close();
    }
  }
}

function openIndex(dir: string, write: boolean, create: boolean): Index {
  try {
    const found = statSync(dir, { throwIfNoEntry: false });
    if (found && !found.isDirectory()) throw notAStore(dir);
    if (write) {
      requireShortPath(dir);
      requireOwnFolders(dir);
    }
    requirePlainIndex(dir);
    finishReplacement(dir);
    if (statSync(at(dir, DATABASE), { throwIfNoEntry: false })?.size) {
      const index = Index.open(dir, write);
      try {
        // A creation that was cut short may have left the index alone, and a copy by other means no empty folders.
        if (write && makeMissingFolders(dir)) fsyncDirectory(dir);
        return index;
      } catch (error) {
        index.close();
        throw error;
      }
    }
    if (!create) throw found ? notAStore(dir) : noSuchStore(dir);
    return createStore(dir);
  } catch (error) {
    throw storeError(dir, error);
  }
}

/** What a creation or repair that was cut short may have left, and what a fresh file system has. */
const HARMLESS = new Set([
  PACKS,
  SNAPSHOTS,
  TAGS,
  SEGMENTS,
  DATABASE,
  LOCK,
  INDEX_LOCK,
  RESERVE,
  'lost+found',
]);
const HARMLESS_DATABASE = /^store\.db(\.(new|next|old))?(-(wal|shm|journal))?$/;

function createStore(dir: string): Index {
  makeDirectory(dir);
  const isNew =
    readdirSync(dir).every((name) => HARMLESS.has(name) || HARMLESS_DATABASE.test(name)) &&
    [PACKS, SNAPSHOTS, TAGS].every((name) => namesIn(dir, name).length === 0);
  if (!isNew) {
    // Another process may have made the store just now, and begun to write.
    if (statSync(at(dir, DATABASE), { throwIfNoEntry: false })?.size) return Index.open(dir, true);
    throw notAStore(dir);
  }
  chmodSync(dir, DIRECTORY_MODE);
  makeMissingFolders(dir);
  const index = Index.create(dir);
  try {
    fillReserve(dir);
    fsyncDirectory(dir);
    return index;
  } catch (error) {
    index.close();
    throw error;
  }
}

/** Another process may have removed it since it was resolved. Errors: NO_SUCH_SNAPSHOT. */
function required({ dir, index }: StoreContext, id: string): SnapshotSummary {
  const summary = index.summary(id);
  if (!summary) throw noSuchSnapshot(dir, id);
  return summary;
}

const noSuchSnapshot = (dir: string, ref: string): LivesnapError =>
  new LivesnapError('NO_SUCH_SNAPSHOT', `there is no snapshot ${JSON.stringify(ref)} in ${dir}`, {
    hint: 'livesnap ls lists the snapshots.',
  });

const noSuchStore = (dir: string): LivesnapError =>
  new LivesnapError('NO_SUCH_FILE', `there is no store at ${dir}`, {
    hint: 'A first save or put makes one; name another with --store or LIVESNAP_STORE.',
  });
