/**
 * The messages between the main thread of a machine's process and its store thread.
 *
 * Invariants:
 * - Every message can be cloned by postMessage.
 * - The main thread numbers stores, saves, open snapshots, open regions and calls.
 */
import { LivesnapError, type PlainError } from '../errors.js';
import type {
  PageRun,
  Region,
  SavedRegion,
  SaveResult,
  SnapshotMetadata,
  SnapshotSummary,
} from '../page-stream.js';

/** The `workerData` of the thread. */
export interface StoreThreadData {
  /** Cancels the waits of the thread (src/store/disk/waits.ts). */
  readonly cancelFlag: SharedArrayBuffer;
}

export interface StoreCalls {
  open: {
    args: { store: number; dir: string; write: boolean; create: boolean };
    result: { key: string };
  };
  tidy: { args: { store: number }; result: PlainError | null };
  close: { args: { store: number }; result: null };
  beginSave: {
    args: { store: number; save: number; regions: readonly SavedRegion[]; tags: readonly string[] };
    result: { bases: readonly (number | null)[]; parent: string | null };
  };
  /** Fetches batches with `next` messages until the source has no more. */
  store: {
    args: { save: number; regions: readonly Region[]; sequential: readonly number[] };
    result: null;
  };
  /** Ends the save, unless it fails. */
  commit: { args: { save: number; metadata: SnapshotMetadata }; result: SaveResult };
  abort: { args: { save: number }; result: null };
  openSnapshot: {
    args: { store: number; snapshot: number; ref: string };
    result: { summary: SnapshotSummary; metadata: SnapshotMetadata; regions: readonly Region[] };
  };
  /** Fills memories, one a region, given by their handles (src/native/memory.ts). */
  fill: { args: { snapshot: number; regions: readonly Region[]; memories: readonly number[] }; result: null };
  /** The reader is a handle for all threads of the process. The region stays open when the snapshot is closed. */
  openRegion: {
    args: { snapshot: number; region: number; name: string };
    result: { sizeBytes: number; reader: number };
  };
  closeRegion: { args: { region: number }; result: null };
  closeSnapshot: { args: { snapshot: number }; result: null };
}

export type StoreCallName = keyof StoreCalls;
export type CallArgs<N extends StoreCallName> = StoreCalls[N]['args'];
export type CallResult<N extends StoreCallName> = StoreCalls[N]['result'];

export type ToStoreThread =
  /** A call. Its result, or its failure, has the same `id`; results come in any order. */
  | { readonly type: 'call'; readonly id: number; readonly name: StoreCallName; readonly args: unknown }
  /** Answers `next`: what the batch holds, or null at the end of the source. Then sizes of regions are final. */
  | {
      readonly type: 'batch';
      readonly id: number;
      readonly run: PageRun | null;
      readonly regions: readonly Region[];
    }
  /** Answers `next`: the source has failed. The main thread keeps the reason. */
  | { readonly type: 'sourceFailed'; readonly id: number };

export type FromStoreThread =
  | { readonly type: 'result'; readonly id: number; readonly result: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly error: ThrownError }
  | {
      readonly type: 'progress';
      readonly id: number;
      readonly doneBytes: number;
      readonly totalBytes: number | null;
    }
  /**
   * The call `store` with this id asks for its next batch, in the buffer of this number. The first message that names a
   * buffer carries it.
   */
  | {
      readonly type: 'next';
      readonly id: number;
      readonly buffer: number;
      readonly shared: SharedArrayBuffer | null;
    };

/** An error as it crosses threads: a LivesnapError, or an unexpected error with its stack. */
export type ThrownError =
  | { readonly known: PlainError }
  | { readonly message: string; readonly stack: string | undefined; readonly code: string | undefined };

export function toThrownError(error: unknown): ThrownError {
  if (error instanceof LivesnapError) return { known: error.toJSON() };
  if (!(error instanceof Error)) return { message: String(error), stack: undefined, code: undefined };
  const { message, stack, code } = error as NodeJS.ErrnoException;
  return { message, stack, code };
}

export function fromThrownError(thrown: ThrownError): Error {
  if ('known' in thrown) return LivesnapError.fromJSON(thrown.known);
  const error = new Error(thrown.message);
  if (thrown.stack !== undefined) error.stack = thrown.stack;
  return thrown.code === undefined ? error : Object.assign(error, { code: thrown.code });
}
