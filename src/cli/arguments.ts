/**
 * Where the verb is among the arguments, and which verb is meant where the original, which had none, is imitated.
 */

/** Flags with which the original was called. */
const ORIGINAL_FLAGS: Record<string, 'start' | 'restore'> = {
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

/** The first argument that is neither an option of every verb nor its value. */
export function firstWord(args: readonly string[]): string | undefined {
  return args.find((argument, i) => !COMMON_FLAGS.includes(flagOf(argument)) && args[i - 1] !== '--store');
}

/** The arguments as `VERB …`: the original's get a verb, and `help VERB` is `VERB --help`. */
export function withVerb(args: readonly string[]): string[] {
  const first = firstWord(args);
  if (first === 'help') return [...args.filter((argument) => argument !== 'help'), '--help'];
  if (first === undefined || !Object.hasOwn(ORIGINAL_FLAGS, flagOf(first))) return [...args];
  const restores = args.some((argument) => ORIGINAL_FLAGS[flagOf(argument)] === 'restore');
  return [restores ? 'restore' : 'start', ...args];
}
