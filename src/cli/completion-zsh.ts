/** The script for zsh, for its completion system. */
import {
  type Candidates,
  type CompletedOperand,
  type CompletedOption,
  type CompletedVerb,
  type Completion,
  quotedWord,
} from './completion-model.js';

function actionOf(candidates: Candidates): string {
  switch (candidates.kind) {
    case 'files':
      return '_files';
    case 'directories':
      return '_directories';
    case 'words':
      return `(${candidates.words.join(' ')})`;
    case 'anything':
      return ' ';
    default:
      return `{_livesnap_names ${candidates.kind}}`;
  }
}

/** Text within a specification of `_arguments`. */
const escaped = (text: string): string => text.replace(/[\\:[\]]/g, '\\$&');

function optionSpecs({ short, long, help, isRepeated, value }: CompletedOption): string[] {
  const rest = [
    `[${escaped(help)}]`,
    ...(value === null
      ? []
      : [`${value.isOptional ? '::' : ':'}${escaped(value.placeholder)}:${actionOf(value.candidates)}`]),
  ].join('');
  // The value of a short option follows directly, or is the next word; that of a long one follows "=", or is that.
  const takes = (name: string): string => {
    if (value === null) return '';
    return name === short ? (value.isOptional ? '-' : '+') : value.isOptional ? '=-' : '=';
  };
  const names = short === null ? [long] : [short, long];
  return names.map((name) =>
    quotedWord(
      `${isRepeated ? '*' : names.length > 1 ? `(${names.join(' ')})` : ''}${name}${takes(name)}${rest}`,
    ),
  );
}

const operandSpec = (
  { placeholder, candidates, isOptional, isRepeated }: CompletedOperand,
  i: number,
): string =>
  quotedWord(
    `${isRepeated ? '*:' : isOptional ? `${i + 1}::` : `${i + 1}:`}${escaped(placeholder)}:${actionOf(candidates)}`,
  );

function verbCase({ name, aliases, options, operands }: CompletedVerb): string[] {
  const specs = [...options.flatMap(optionSpecs), ...operands.map(operandSpec)];
  return [
    `  ${[name, ...aliases].join(' | ')})`,
    `    _arguments -S : \\\n${specs.map((spec) => `      ${spec}`).join(' \\\n')}`,
    '    ;;',
  ];
}

export function zshScript({ verbs, options }: Completion): string {
  const described = verbs.flatMap(({ name, aliases, summary }) =>
    [name, ...aliases].map((each) => quotedWord(`${each}:${escaped(summary)}`)),
  );
  return `#compdef livesnap
# Completion for zsh. To use it: livesnap completion zsh >DIR/_livesnap, where DIR is in $fpath before compinit.

_livesnap_verbs() {
  local -a verbs
  verbs=(
${described.map((line) => `    ${line}`).join('\n')}
    'help:Show the options of a verb'
  )
  _describe verb verbs
}

# Names of machines, snapshots or tags.
_livesnap_names() {
  local -a names
  local dir=\${(Q)\${opt_args[--store]:-$livesnap_store}}
  dir=\${dir/#\\~\\//$HOME/}
  names=(\${(f)"$(livesnap list-names $1 \${dir:+--store=$dir} </dev/null 2>/dev/null)"})
  compadd -a names && return
  # An exported directory is a snapshot, too.
  [[ $1 == *snapshots ]] && _directories
}

_livesnap() {
  local livesnap_store
  local -A opt_args
  local -i i=2
  # Options that stand before the verb.
  while ((i < CURRENT)); do
    case $words[i] in
    --store)
      livesnap_store=$words[i+1]
      ((i++))
      ;;
    --store=*) livesnap_store=\${words[i]#*=} ;;
    -*) ;;
    *) break ;;
    esac
    ((i++))
  done
  if ((i >= CURRENT)); then
    _arguments : \\
${options
  .flatMap(optionSpecs)
  .map((spec) => `      ${spec} \\`)
  .join('\n')}
      '1: :_livesnap_verbs'
    return
  fi
  words=("\${(@)words[i,-1]}")
  ((CURRENT -= i - 1))
  case $words[1] in
${verbs.flatMap(verbCase).join('\n')}
  help) _arguments : '1: :_livesnap_verbs' ;;
  *) return 1 ;;
  esac
}

if [[ $funcstack[1] == _livesnap ]]; then
  _livesnap "$@"
else
  compdef _livesnap livesnap
fi
`;
}
