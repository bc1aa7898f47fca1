/**
 * Verbs as data: what a file of this folder says about its verb, and what it is given when it runs. main.ts alone
 * knows the parser.
 */
import type { Output } from './output.js';

/** An option that takes a value, or (without `parse`) one that is there or not. */
export interface OptionSpec<T> {
  /** As in the help: `--tag <label>`. */
  readonly flags: string;
  readonly help: string;
  /** Not shown in the help: a spelling of the original that has a newer one. */
  readonly hidden?: boolean;
  /** Errors: USAGE. */
  readonly parse?: (text: string) => T;
}

/** An option with a value; undefined when it is not given. */
export const valued = <T>(
  flags: string,
  help: string,
  parse: (text: string) => T,
): OptionSpec<T | undefined> => ({ flags, help, parse });

/** An option whose value may be left out: then it is true. */
export const optional = <T>(
  flags: string,
  help: string,
  parse: (text: string) => T,
): OptionSpec<T | true | undefined> => ({ flags, help, parse });

/** An option without a value. */
export const flag = (flags: string, help: string): OptionSpec<boolean> => ({ flags, help });

/** A spelling kept for those who know the original. */
export const hidden = <T>(spec: OptionSpec<T>): OptionSpec<T> => ({ ...spec, hidden: true });

export type Values<O> = { readonly [K in keyof O]: O[K] extends OptionSpec<infer T> ? T : never };

/** What every verb is given. */
export interface Call<O> {
  readonly operands: readonly string[];
  readonly options: Values<O>;
  readonly output: Output;
  /** Absolute path of the store. Errors: USAGE, when none is named and there is no default. */
  readonly storeDir: string;
  /** The same where --store or LIVESNAP_STORE names it; null: `storeDir` is a default, and must not override what a machine knows. */
  readonly namedStoreDir: string | null;
}

export interface Verb<O extends Record<string, OptionSpec<unknown>> = Record<string, OptionSpec<unknown>>> {
  readonly name: string;
  readonly summary: string;
  /** For other programs, not for people: left out of the help. */
  readonly hidden?: boolean;
  /** As the parser writes them: `<machine>`, `<snapshot...>`. */
  readonly operands: readonly string[];
  readonly options: O;
  /** More to say below the options. */
  readonly notes?: string;
  /** Resolves to the exit status when it is not 0. */
  run(call: Call<O>): Promise<number | undefined>;
}

/** Types `run` by the options beside it. */
export const defineVerb = <O extends Record<string, OptionSpec<unknown>>>(verb: Verb<O>): Verb =>
  verb as unknown as Verb;
