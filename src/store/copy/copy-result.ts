/** The options and results of a copy, for both ends and their callers. */
import type { Progress } from '../types.js';

/** What one snapshot will transfer. */
export interface CopyPlan {
  readonly id: string;
  /** The destination already has this snapshot, so nothing is sent. */
  readonly alreadyThere: boolean;
  readonly sendChunks: number;
  readonly presentChunks: number;
}

/** Called once per snapshot, before any page is sent. */
export type OnPlan = (plan: CopyPlan) => void;

/** Called after each snapshot. */
export type OnDone = (result: CopyResult) => void;

export interface SendOptions {
  /** Compress pages for the connection. Copies within one machine do not. */
  readonly compress: boolean;
  readonly onPlan: OnPlan;
  readonly progress: Progress;
}

export interface ReceiveOptions {
  /** The ID of the requested snapshot; an offer of any other is refused. Absent or null: requested by tag or prefix. */
  readonly id?: string | null;
  readonly onPlan: OnPlan;
  readonly progress: Progress;
}

export interface CopyResult {
  readonly id: string;
  /** Bytes of pages as sent, after compression. */
  readonly sentBytes: number;
  readonly sentChunks: number;
  readonly presentChunks: number;
  /** Tags that were not copied: they name other snapshots at the destination, or look like an ID. */
  readonly skippedTags: readonly string[];
}
