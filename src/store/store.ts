/**
 * The store: a directory of packs, manifests and snapshots with an SQLite index (docs/format.md).
 */
import type { Readable } from 'node:stream';
import { LivesnapError } from '../errors.js';
import type { PageSink, PageSource, Region } from '../page-stream.js';
import type {
  Problem,
  Progress,
  SaveResult,
  SnapshotDetails,
  SnapshotMetadata,
  SnapshotSummary,
  StoreStats,
} from './types.js';

/** A save under way. Exactly one of `commit` and `abort` ends it; after a failed `store` or `commit`, call `abort`. */
export interface SaveSession {
  /** The snapshot this save is relative to; null when it is full (none was asked for, or it is gone). */
  readonly parent: string | null;
  /** Stores what the source gives; may be called more than once with sources of the same regions. */
  store(source: PageSource, progress?: Progress): Promise<void>;
  /** The one commit point: when it resolves the snapshot exists and survives a power cut. */
  commit(metadata: SnapshotMetadata): Promise<SaveResult>;
  /** Gives the save up; nothing of it is visible. */
  abort(): Promise<void>;
}

/** A snapshot opened for reading; its packs stay open until `close`. */
export interface OpenSnapshot {
  readonly summary: SnapshotSummary;
  readonly metadata: SnapshotMetadata;
  readonly regions: readonly Region[];
  /** Writes every page that is not zero to the sink; all of it is verified. Errors: DAMAGED. */
  fill(sink: PageSink, progress?: Progress): Promise<void>;
  close(): void;
}

const missing = (): never => {
  throw new LivesnapError('NOT_POSSIBLE_NOW', 'the store is being built');
};

export class Store {
  private constructor(readonly dir: string) {}

  /** Opens the store in `dir`. Errors: NO_SUCH_FILE, NOT_A_STORE, NEWER_FORMAT, READ_ONLY, STORE_BUSY. */
  static open(dir: string, _options: { write: boolean; create?: boolean }): Store {
    return new Store(dir);
  }

  /** Rebuilds the index of the store in `dir` from its files; the sentences say what was done. */
  static async repair(_dir: string, _progress?: Progress): Promise<{ actions: string[] }> {
    return missing();
  }

  close(): void {}

  /** Every snapshot, oldest first. */
  list(): SnapshotSummary[] {
    return missing();
  }

  /** The id that `ref` (a tag, else an id, else a unique prefix of one) names. Errors: NO_SUCH_SNAPSHOT, AMBIGUOUS. */
  resolve(_ref: string): string {
    return missing();
  }

  show(_ref: string): SnapshotDetails {
    return missing();
  }

  stats(): StoreStats {
    return missing();
  }

  /** Makes `label` name the snapshot; it is taken from whichever had it. */
  setTag(_ref: string, _label: string): void {
    missing();
  }

  /** Removes snapshots; all are resolved before any is removed. Returns their ids. */
  remove(_refs: readonly string[]): string[] {
    return missing();
  }

  async gc(
    _options: { dryRun: boolean },
    _progress?: Progress,
  ): Promise<{ removedChunks: number; freedBytes: number }> {
    return missing();
  }

  async check(
    _options: { readData: boolean },
    _progress?: Progress,
  ): Promise<{ ok: boolean; problems: Problem[] }> {
    return missing();
  }

  async beginSave(_options: { parent: string | null }): Promise<SaveSession> {
    return missing();
  }

  async openSnapshot(_ref: string): Promise<OpenSnapshot> {
    return missing();
  }

  /** Stores a file (its path) or a stream of unknown length as a snapshot of kind `file`. */
  async put(
    _input: string | Readable,
    _options: { tag: string | null; name: string | null },
    _progress?: Progress,
  ): Promise<SaveResult> {
    return missing();
  }

  /** Writes the file that a snapshot of kind `file` holds to `path`. */
  async get(_ref: string, _path: string, _progress?: Progress): Promise<{ bytes: number }> {
    return missing();
  }
}
