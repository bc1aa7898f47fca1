/** The parts of a command line that must be known before it is parsed. */

/** Options that may stand before the verb. */
const COMMON_FLAGS = ['--store', '--json', '--quiet', '-q'];

const HELP_FLAGS = ['--help', '-h'];
const VERSION_FLAGS = ['--version', '-V'];

/** The arguments before `--`: later ones are operands, whatever they look like. */
const beforeOperands = (args: readonly string[]): readonly string[] => {
  const end = args.indexOf('--');
  return end < 0 ? args : args.slice(0, end);
};

export const asksForHelp = (args: readonly string[]): boolean =>
  beforeOperands(args).some((argument) => HELP_FLAGS.includes(argument));

export const asksForVersion = (args: readonly string[]): boolean =>
  beforeOperands(args).some((argument) => VERSION_FLAGS.includes(argument));

export const asksForJson = (args: readonly string[]): boolean => beforeOperands(args).includes('--json');

export const flagOf = (argument: string): string => argument.split('=')[0]!;

/** The first argument that is neither a common option nor the value of one. */
export const firstWord = (args: readonly string[]): string | undefined => args[firstWordAt(args)];

/** The index of {@link firstWord}; -1: there is none. */
export const firstWordAt = (args: readonly string[]): number =>
  args.findIndex((argument, i) => !COMMON_FLAGS.includes(flagOf(argument)) && args[i - 1] !== '--store');
