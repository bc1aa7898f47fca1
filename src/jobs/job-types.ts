/** Jobs: long work with the store, or many machines, in a process of its own. What is asked for, and what is known of it. */
import type { PlainError } from '../errors.js';
import type { KeepRules } from '../host/forget-policy.js';
import type { ForkOptions } from '../host/host.js';
import type { CheckOptions, ForgetOptions, GcOptions } from '../host/store-verbs.js';

type Plain<T> = Omit<T, 'signal' | 'onProgress' | 'dryRun'>;

export type JobRequest =
  | ({ readonly kind: 'gc' } & Plain<GcOptions>)
  | ({ readonly kind: 'check' } & Plain<CheckOptions>)
  | ({ readonly kind: 'forget'; readonly keep: KeepRules; readonly prune: boolean } & Pick<
      ForgetOptions,
      'snapshots' | 'groupBy'
    >)
  /** `snapshots` null: all. `to`, `from`: a directory or an address. */
  | {
      readonly kind: 'copy';
      readonly snapshots: readonly string[] | null;
      readonly remote: { readonly to: string } | { readonly from: string };
    }
  /** An exported directory in a temporary one, which is deleted when the job ends. */
  | { readonly kind: 'import'; readonly dir: string; readonly temporary: string }
  /** `from`: the ID of a machine, or of a snapshot. */
  | ({
      readonly kind: 'fork';
      readonly from: { readonly machine: string } | { readonly snapshot: string };
    } & Pick<ForkOptions, 'count' | 'name' | 'labels' | 'lifetimeMs'>);

export type JobKind = JobRequest['kind'];
export type JobState = 'running' | 'done' | 'failed' | 'cancelled';

/** What is in the file of a job. */
export interface JobRecord {
  readonly kind: JobKind;
  /** What it works on, for people: a machine, a remote. Empty: the store. */
  readonly subject: string;
  readonly state: JobState;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly progress: { readonly doneBytes: number; readonly totalBytes: number | null } | null;
  readonly result: unknown;
  readonly error: PlainError | null;
}

/** A job that can be found. */
export interface Job extends JobRecord {
  /** 32 lower-case hexadecimal digits. */
  readonly id: string;
}

/** What the process of a job reads from its standard input, as JSON. */
export interface JobLaunch {
  readonly directory: string;
  readonly storeDir: string;
  readonly subject: string;
  readonly startedAt: string;
  readonly request: JobRequest;
}
