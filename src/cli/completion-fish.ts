/** The script for fish. */
import type { Candidates, CompletedOption, CompletedVerb, Completion } from './completion-model.js';

/** A text as one word of fish. */
const quoted = (text: string): string => `'${text.replace(/[\\']/g, '\\$&')}'`;

/** The options of `complete` for these candidates. */
function offering(candidates: Candidates): string {
  switch (candidates.kind) {
    case 'files':
      return '-F';
    case 'directories':
      return "-f -a '(__fish_complete_directories (commandline -ct))'";
    case 'words':
      return `-f -a ${quoted(candidates.words.join(' '))}`;
    case 'anything':
      return '-f';
    default:
      return `-f -a '(__livesnap_names ${candidates.kind})'`;
  }
}

const optionLine =
  (condition: string) =>
  ({ short, long, help, value }: CompletedOption): string =>
    [
      `complete -c livesnap -n ${quoted(condition)}`,
      ...(short === null ? [] : [`-s ${short.slice(1)}`]),
      `-l ${long.slice(2)}`,
      // An optional value is written after "=", which fish does not complete.
      ...(value === null || value.isOptional ? [] : [`-r ${offering(value.candidates)}`]),
      `-d ${quoted(help)}`,
    ].join(' ');

function verbLines({ name, aliases, summary, options, operands }: CompletedVerb): string[] {
  const names = [name, ...aliases];
  const lines = names.map(
    (each) => `complete -c livesnap -n '__livesnap_at 0' -a ${each} -d ${quoted(summary)}`,
  );
  const is = `__livesnap_is ${names.join(' ')}`;
  const ofOperands = operands.map(
    ({ candidates, isRepeated }, i) =>
      `complete -c livesnap -n ${quoted(`${is}; and __livesnap_at ${i + 1}${isRepeated ? ' or-more' : ''}`)} ${offering(candidates)}`,
  );
  return [...lines, ...options.map(optionLine(is)), ...ofOperands];
}

export function fishScript({ verbs, options }: Completion): string {
  const names = verbs.flatMap(({ name, aliases }) => [name, ...aliases]);
  const withValue = [
    ...new Set(
      [...verbs.flatMap((verb) => verb.options), ...options]
        .filter(({ value }) => value !== null && !value.isOptional)
        .flatMap(({ short, long }) => (short === null ? [long] : [short, long])),
    ),
  ];
  return `# Completion for fish. To use it: livesnap completion fish >~/.config/fish/completions/livesnap.fish

# The verb and the operands before the cursor, one a line.
function __livesnap_words
    set -l is_value 0
    for word in (commandline -opc)[2..]
        if test $is_value = 1
            set is_value 0
        else if contains -- $word ${withValue.join(' ')}
            set is_value 1
        else if not string match -q -- '-*' $word
            echo -- $word
        end
    end
end

# Whether the verb is one of these.
function __livesnap_is
    set -l words (__livesnap_words)
    contains -- "$words[1]" $argv
end

# Whether the cursor is at this word: 0 is the verb, 1 the first operand. "or-more": or at a later one.
function __livesnap_at
    set -l count (count (__livesnap_words))
    test $count -eq $argv[1]
    or test "$argv[2]" = or-more -a $count -gt $argv[1]
end

# Names of machines, snapshots or tags.
function __livesnap_names
    set -l store
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case --store
                set store --store=$words[(math $i + 1)]
            case '--store=*'
                set store $words[$i]
        end
    end
    set -l names (livesnap list-names $argv[1] $store </dev/null 2>/dev/null)
    set -l begun (commandline -ct)
    if not string match -q '*snapshots' $argv[1]; or string match -q -- "$begun*" $names
        printf '%s\\n' $names
    else
        # An exported directory is a snapshot, too.
        __fish_complete_directories $begun
    end
end

complete -c livesnap -f
complete -c livesnap -n '__livesnap_at 0' -a help -d 'Show the options of a verb'
complete -c livesnap -n '__livesnap_is help; and __livesnap_at 1' -f -a ${quoted(names.join(' '))}
${options.map(optionLine('__livesnap_at 0')).join('\n')}
${verbs.flatMap(verbLines).join('\n')}
`;
}
