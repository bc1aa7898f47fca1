/**
 * What a shell can complete, derived from the verbs' definitions: the scripts for all shells are made of this.
 *
 * A placeholder in a definition, such as `<file>`, says what its value is.
 */
import { commonOptions, HELP_OPTION, VERSION_OPTION } from './common-options.js';
import type { OptionSpec, Verb, VerbEntry } from './verb.js';

/** `list-names` lists the names of the last four. */
type Kind =
  | 'anything'
  | 'files'
  | 'directories'
  | 'machines'
  | 'snapshots'
  | 'machines-and-snapshots'
  | 'tags';

/** What comes in question for a value. `anything`: the shell has nothing to offer. */
export type Candidates =
  | { readonly kind: Kind }
  | { readonly kind: 'words'; readonly words: readonly string[] };

export const SHELLS = ['bash', 'zsh', 'fish'] as const;

const PLACEHOLDERS: Readonly<Record<string, Candidates>> = {
  file: { kind: 'files' },
  path: { kind: 'files' },
  'number-or-file': { kind: 'files' },
  dir: { kind: 'directories' },
  remote: { kind: 'directories' },
  machine: { kind: 'machines' },
  snapshot: { kind: 'snapshots' },
  'other-snapshot': { kind: 'snapshots' },
  'machine|snapshot': { kind: 'machines-and-snapshots' },
  tag: { kind: 'tags' },
  shell: { kind: 'words', words: SHELLS },
};

const ANYTHING: Candidates = { kind: 'anything' };

const candidatesFor = (placeholder: string): Candidates =>
  Object.hasOwn(PLACEHOLDERS, placeholder) ? PLACEHOLDERS[placeholder]! : ANYTHING;

export interface CompletedValue {
  /** `file`. */
  readonly placeholder: string;
  readonly candidates: Candidates;
  readonly isOptional: boolean;
}

export interface CompletedOption {
  readonly help: string;
  /** `-d`. */
  readonly short: string | null;
  /** `--detach`. */
  readonly long: string;
  readonly isRepeated: boolean;
  /** Null: it is a flag. */
  readonly value: CompletedValue | null;
}

export interface CompletedOperand extends CompletedValue {
  /** It takes all operands that follow. */
  readonly isRepeated: boolean;
}

export interface CompletedVerb {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  readonly operands: readonly CompletedOperand[];
}

export interface Completion {
  readonly verbs: readonly CompletedVerb[];
  /** Options without a verb. */
  readonly options: readonly CompletedOption[];
}

function completedOption({ flags, help, repeated = false, parse }: OptionSpec<unknown>): CompletedOption {
  const [, short = null, long, open, placeholder] = /^(?:(-\w), )?(--[\w-]+)(?: ([<[])([^>\]]+)[>\]])?$/.exec(
    flags,
  )!;
  const words = parse?.words;
  const candidates: Candidates =
    words === undefined ? candidatesFor(placeholder ?? '') : { kind: 'words', words };
  const value = placeholder === undefined ? null : { placeholder, candidates, isOptional: open === '[' };
  return { help, short, long: long!, isRepeated: repeated, value };
}

function completedOperand(operand: string): CompletedOperand {
  const [, placeholder, dots] = /^[<[]([\w|-]+)(\.\.\.)?[>\]]$/.exec(operand)!;
  return {
    placeholder: placeholder!,
    candidates: candidatesFor(placeholder!),
    isOptional: operand.startsWith('['),
    isRepeated: dots !== undefined,
  };
}

const shown = (specs: readonly OptionSpec<unknown>[]): CompletedOption[] =>
  specs.filter(({ hidden }) => !hidden).map(completedOption);

const optionsOf = (verb: Verb): CompletedOption[] =>
  shown([...Object.values(verb.options), ...commonOptions(verb), HELP_OPTION]);

/** Loads the definitions of all verbs. */
export async function completionModel(all: ReadonlyMap<string, VerbEntry>): Promise<Completion> {
  const listed = [...all].filter(([, { isHidden }]) => !isHidden);
  const verbs = await Promise.all(
    listed.map(async ([name, { summary, aliases, load }]) => {
      const { verb } = await load();
      const operands = verb.operands.map(completedOperand);
      return { name, aliases: Object.keys(aliases), summary, options: optionsOf(verb), operands };
    }),
  );
  return { verbs, options: shown([VERSION_OPTION, ...commonOptions(), HELP_OPTION]) };
}

/** A text as one word of a shell, which the shell does not expand. */
export const quotedWord = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
