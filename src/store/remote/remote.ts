/** The interface of a remote: the other store of a copy. Each kind is one file here and one line of schemes.ts. */
import type { CopyResult, OnDone, OnPlan } from '../copy/copy-result.js';
import type { CopyEnd, Refs } from '../copy/sessions.js';
import type { Progress } from '../types.js';

/** What to copy. */
export interface CopyTask {
  readonly direction: 'to' | 'from';
  /** Snapshots, named as at the source, or chosen among all of the source. */
  readonly refs: Refs;
  readonly onPlan: OnPlan;
  readonly onDone?: OnDone;
  /** Called with each line that a helper program such as ssh prints. */
  readonly onNotice?: (line: string) => void;
  readonly progress: Progress;
  /** Ends the copy, as a lost connection does: the next one resumes it. */
  readonly signal?: AbortSignal | undefined;
}

export interface Remote {
  /**
   * Checks what can be checked before the local store is created or anything is copied. Errors: NO_SUCH_SNAPSHOT, and
   * those of the remote store.
   */
  prepare?(task: Pick<CopyTask, 'direction' | 'refs'>): void;
  /** Copies between the local `store` and the remote. Errors: REMOTE_FAILED, and those of both stores. */
  copy(store: CopyEnd, task: CopyTask): Promise<CopyResult[]>;
}

/** A kind of remote, known by the scheme of its addresses. */
export interface Scheme {
  /** A valid address, for hints: `ssh://host/dir`. */
  readonly example: string;
  /** False: a copy can only read from such a remote. */
  readonly receives: boolean;
  /** Parses an address. Touches nothing before the copy. Errors: USAGE. */
  open(address: string): Remote;
}
