/**
 * What the main thread of a machine's process and its store thread say to each other. Everything is
 * structured-cloneable. Stores, saves and open snapshots have numbers, which the main thread gives.
 */
import { LivesnapError, type PlainError } from '../errors.js';
import type { PageRun, Region, SaveResult, SnapshotMetadata, SnapshotSummary } from '../page-stream.js';

/** What the Worker is made with. */
export interface StoreThreadData {
  /** The word by which its waits are given up (src/store/disk/waits.ts). */
  readonly patience: SharedArrayBuffer;
  /** Start the page Workers at once: a store is about to be read. */
  readonly startWorkers: boolean;
}

export interface Requests {
  open: {
    ask: { store: number; dir: string; write: boolean; create: boolean };
    answer: null;
  };
  tidy: { ask: { store: number }; answer: PlainError | null };
  close: { ask: { store: number }; answer: null };
  beginSave: {
    ask: { store: number; save: number; parent: string | null; tag: string | null };
    answer: { parent: string | null };
  };
  /** Fetches batches with `next` messages until there are none. */
  store: { ask: { save: number; regions: readonly Region[] }; answer: null };
  /** Ends the save, unless it fails. */
  commit: { ask: { save: number; metadata: SnapshotMetadata }; answer: SaveResult };
  abort: { ask: { save: number }; answer: null };
  openSnapshot: {
    ask: { store: number; snapshot: number; ref: string };
    answer: { summary: SnapshotSummary; metadata: SnapshotMetadata; regions: readonly Region[] };
  };
  /** Fills memories, one a region: handles of src/native/memory.ts. */
  fill: { ask: { snapshot: number; regions: readonly Region[]; memories: readonly number[] }; answer: null };
  closeSnapshot: { ask: { snapshot: number }; answer: null };
}

export type RequestName = keyof Requests;
export type Ask<N extends RequestName> = Requests[N]['ask'];
export type Answer<N extends RequestName> = Requests[N]['answer'];

export type ToStoreThread =
  /** Requests are answered by a message with their `id`, in any order. */
  | { readonly type: 'request'; readonly id: number; readonly name: RequestName; readonly ask: unknown }
  /** Answers `next`: what the batch holds, or null when every page was given. Sizes of regions are final then. */
  | {
      readonly type: 'given';
      readonly id: number;
      readonly run: PageRun | null;
      readonly regions: readonly Region[];
    }
  /** Answers `next`: the source has failed. Why, the main thread knows. */
  | { readonly type: 'notGiven'; readonly id: number };

export type FromStoreThread =
  | { readonly type: 'answer'; readonly id: number; readonly answer: unknown }
  | { readonly type: 'failure'; readonly id: number; readonly error: ThrownError }
  | {
      readonly type: 'progress';
      readonly id: number;
      readonly doneBytes: number;
      readonly totalBytes: number | null;
    }
  /**
   * The request `store` with this id wants its next batch, in the buffer of this number. The buffer itself comes with the
   * first message that names it.
   */
  | {
      readonly type: 'next';
      readonly id: number;
      readonly buffer: number;
      readonly shared: SharedArrayBuffer | null;
    };

/** An error as it crosses threads: one of ours, or one that nobody expected, with its stack. */
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
