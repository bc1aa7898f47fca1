/** What a copy tells its caller, before and after. */

export interface CopyPlan {
  readonly id: string;
  /** The other store has this snapshot already: nothing is sent. */
  readonly alreadyThere: boolean;
  readonly sendChunks: number;
  readonly presentChunks: number;
}

/** Called once for each snapshot, when it is known what will travel. */
export type OnPlan = (plan: CopyPlan) => void;

export interface CopyResult {
  readonly id: string;
  /** Pages as they travelled, compressed. */
  readonly sentBytes: number;
  readonly sentChunks: number;
  readonly presentChunks: number;
  /** The snapshot's tag names another one there, and stayed with that. */
  readonly tagTaken: boolean;
}
