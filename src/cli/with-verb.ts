/**
 * Gives every command line a verb: replaces an alias, `help VERB` and `-v`. The legacy command line had no verbs: its
 * options imply `start` or `restore`.
 */
import { firstWord, firstWordAt, flagOf } from './arguments.js';
import { ALIASES } from './verbs.js';

/** Options of the legacy command line, and the verb that each one implies. */
const LEGACY_FLAGS: Record<string, 'start' | 'restore'> = {
  '--cpu_path': 'restore',
  '--memory_path': 'restore',
  '--kernel': 'start',
  '--memory': 'start',
  '--vcpu': 'start',
  '--port': 'start',
};

/**
 * The arguments with a verb: legacy arguments get one, an alias becomes its verb, `help VERB` becomes `VERB --help`, and
 * `-v` alone becomes `--version`.
 */
export function withVerb(args: readonly string[]): string[] {
  if (args.length === 1 && args[0] === '-v') return ['--version'];
  const first = firstWord(args);
  if (first === 'help') return [...withVerb(args.filter((argument) => argument !== 'help')), '--help'];
  const alias = first === undefined ? undefined : ALIASES.get(first);
  if (alias !== undefined) {
    const at = firstWordAt(args);
    return [...args.slice(0, at), alias.verb, ...alias.options, ...args.slice(at + 1)];
  }
  if (first === undefined || !Object.hasOwn(LEGACY_FLAGS, flagOf(first))) return [...args];
  const restores = args.some((argument) => LEGACY_FLAGS[flagOf(argument)] === 'restore');
  return [restores ? 'restore' : 'start', ...args];
}
