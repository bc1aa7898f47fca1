/**
 * Verbs as data: each file of a verb exports one `Verb`. Only program.ts knows the parser.
 */
import type { Output } from './output.js';

/** Makes a value of the text of an option. Errors: USAGE. */
export interface ValueParser<T> {
  (text: string): T;
  /** All values that it takes, if they are a few words. */
  readonly words?: readonly string[];
}

/** An option. It takes a value if it has `parse`; otherwise it is a flag. */
export interface OptionSpec<T> {
  /** As shown in the help: `--tag <tag>`. */
  readonly flags: string;
  readonly help: string;
  /** Left out of the help: a legacy form of a newer option. */
  readonly hidden?: boolean;
  /** It may be given several times: its value is a list. */
  readonly repeated?: boolean;
  readonly parse?: ValueParser<T>;
}

/** An option with a value. It is undefined when it is not given. */
export const valued = <T>(flags: string, help: string, parse: ValueParser<T>): OptionSpec<T | undefined> => ({
  flags,
  help,
  parse,
});

/** An option with an optional value. Without a value it is true. */
export const optional = <T>(
  flags: string,
  help: string,
  parse: ValueParser<T>,
): OptionSpec<T | true | undefined> => ({ flags, help, parse });

/** An option with a value that may be given several times. Its value is the list of them, in order. */
export const repeated = <T>(
  flags: string,
  help: string,
  parse: ValueParser<T>,
): OptionSpec<readonly T[]> => ({
  flags,
  help,
  repeated: true,
  parse: parse as unknown as ValueParser<readonly T[]>,
});

/** An option without a value. */
export const flag = (flags: string, help: string): OptionSpec<boolean> => ({ flags, help });

/** An option that the help leaves out. */
export const hidden = <T>(spec: OptionSpec<T>): OptionSpec<T> => ({ ...spec, hidden: true });

export type Values<O> = { readonly [K in keyof O]: O[K] extends OptionSpec<infer T> ? T : never };

/** The arguments of a verb's `run`. */
export interface Call<O> {
  readonly operands: readonly string[];
  readonly options: Values<O>;
  readonly output: Output;
  /** All verbs, by name. */
  readonly verbs: ReadonlyMap<string, VerbEntry>;
  /** The value of --store. */
  readonly storeOption: string | undefined;
  /** Absolute path of the store. Errors: USAGE (no store is named and there is no default; the config file is wrong). */
  readonly storeDir: string;
  /** The store named by --store or LIVESNAP_STORE. Null: `storeDir` is the default, and a machine's own store wins. */
  readonly namedStoreDir: string | null;
}

export interface Verb<O extends Record<string, OptionSpec<unknown>> = Record<string, OptionSpec<unknown>>> {
  readonly name: string;
  /** As the parser writes them: `<machine>`, `[snapshot]`, `<snapshot...>`. */
  readonly operands: readonly string[];
  readonly options: O;
  /** What stands after the verb in `Usage:`, where options and operands do not say what is required. */
  readonly usage?: string;
  /** False: --store has no effect, and the help leaves it out. */
  readonly usesStore?: false;
  /** The store without --store and LIVESNAP_STORE, for the help, if it is not the user's default store. */
  readonly defaultStore?: string;
  /** Text below the options in the help. */
  readonly notes?: string;
  /** Resolves to the exit status. */
  run(call: Call<O>): Promise<number>;
}

/** A verb in the list of verbs.ts. */
export interface VerbEntry {
  readonly group: string;
  readonly summary: string;
  readonly load: () => Promise<{ readonly verb: Verb }>;
  /** Left out of the help: called by other programs. */
  readonly isHidden: boolean;
  /** Other names of the verb, each with the options that it implies. */
  readonly aliases: Readonly<Record<string, readonly string[]>>;
}

/** Gives `run` the types of the options beside it. */
export const defineVerb = <O extends Record<string, OptionSpec<unknown>>>(verb: Verb<O>): Verb =>
  verb as unknown as Verb;
