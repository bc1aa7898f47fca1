/**
 * Finds the verb among the arguments. The legacy command line had no verbs: its options imply `start` or `restore`.
 */

/** Options of the legacy command line, and the verb that each one implies. */
const LEGACY_FLAGS: Record<string, 'start' | 'restore'> = {
  '--cpu_path': 'restore',
  '--memory_path': 'restore',
  '--kernel': 'start',
  '--memory': 'start',
  '--vcpu': 'start',
  '--port': 'start',
};

/** Options that may stand before the verb. */
const COMMON_FLAGS = ['--store', '--json', '--quiet'];

const flagOf = (argument: string): string => argument.split('=')[0]!;

/** The first argument that is neither a common option nor the value of one. */
export function firstWord(args: readonly string[]): string | undefined {
  return args.find((argument, i) => !COMMON_FLAGS.includes(flagOf(argument)) && args[i - 1] !== '--store');
}

/** The arguments with a verb: legacy arguments get one, and `help VERB` becomes `VERB --help`. */
export function withVerb(args: readonly string[]): string[] {
  const first = firstWord(args);
  if (first === 'help') return [...args.filter((argument) => argument !== 'help'), '--help'];
  if (first === undefined || !Object.hasOwn(LEGACY_FLAGS, flagOf(first))) return [...args];
  const restores = args.some((argument) => LEGACY_FLAGS[flagOf(argument)] === 'restore');
  return [restores ? 'restore' : 'start', ...args];
}
