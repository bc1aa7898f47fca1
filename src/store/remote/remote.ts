/** What a remote is to a copy: a way to a store elsewhere. Each kind is a file of this folder and a line of schemes.ts. */
import type { CopyResult, OnPlan } from '../copy/copy-result.js';
import type { CopyEnd } from '../copy/sessions.js';
import type { Progress } from '../types.js';

/** What is to be copied. */
export interface CopyTask {
  readonly direction: 'to' | 'from';
  /** Snapshots by the names they have at the source. */
  readonly refs: readonly string[];
  readonly onPlan: OnPlan;
  /** Gets each line that a program which leads to the remote prints, such as ssh. */
  readonly onNotice?: (line: string) => void;
  readonly progress: Progress;
}

export interface Remote {
  /** Copies between `store`, which is of this machine, and the remote. Errors: REMOTE_FAILED, and those of both. */
  copy(store: CopyEnd, task: CopyTask): Promise<CopyResult[]>;
}

/** A kind of remotes, which the scheme of their addresses tells. */
export interface Scheme {
  /** What addresses look like, for hints: `ssh://host/dir`. */
  readonly example: string;
  /** False: they can only be copied from. */
  readonly receives: boolean;
  /** Reads an address; nothing is touched before the copy. Errors: USAGE. */
  open(address: string): Remote;
}
