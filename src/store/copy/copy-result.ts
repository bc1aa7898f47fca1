/** What a copy tells its caller, before and after. */
import type { Progress } from '../types.js';

export interface CopyPlan {
  readonly id: string;
  /** The other store has this snapshot already: nothing is sent. */
  readonly alreadyThere: boolean;
  readonly sendChunks: number;
  readonly presentChunks: number;
}

/** Called once for each snapshot, when it is known what will travel. */
export type OnPlan = (plan: CopyPlan) => void;

export interface SendOptions {
  /** Compress pages on their way: not within one machine. */
  readonly compress: boolean;
  readonly onPlan: OnPlan;
  readonly progress: Progress;
}

export interface ReceiveOptions {
  /** The snapshot that was asked for, where it was by its id; another one is refused. */
  readonly id?: string | null;
  readonly onPlan: OnPlan;
  readonly progress: Progress;
}

export interface CopyResult {
  readonly id: string;
  /** Pages as they travelled, compressed. */
  readonly sentBytes: number;
  readonly sentChunks: number;
  readonly presentChunks: number;
  /** The snapshot's tag did not come along: it names another one there, or looks like an id. */
  readonly tagTaken: boolean;
}
