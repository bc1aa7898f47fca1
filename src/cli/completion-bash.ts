/**
 * The script for bash. It needs no bash-completion.
 *
 * Invariant: nothing that comes from a store or from the command line is evaluated.
 */
import { type Candidates, type CompletedVerb, type Completion, quotedWord } from './completion-model.js';

const kindOf = (candidates: Candidates): string =>
  candidates.kind === 'words' ? `words ${candidates.words.join(' ')}` : candidates.kind;

function verbCase({ name, aliases, options, operands }: CompletedVerb): string[] {
  const flags = options.flatMap(({ short, long }) => (short === null ? [long] : [short, long]));
  return [
    `  ${[name, ...aliases].join(' | ')})`,
    `    verb=${name}`,
    `    options=${quotedWord(flags.join(' '))}`,
    `    operands=(${operands.map(({ candidates }) => quotedWord(kindOf(candidates))).join(' ')})`,
    `    repeats=${operands.at(-1)?.isRepeated ? 1 : ''}`,
    '    ;;',
  ];
}

/** Options with an optional value take it only after `=`, as readline shows it: they are flags here. */
const valueCases = ({ name, options }: CompletedVerb): string[] =>
  options.flatMap(({ short, long, value }) =>
    value === null || value.isOptional || long === '--store'
      ? []
      : [
          `  ${(short === null ? [long] : [short, long]).map((each) => quotedWord(`${name} ${each}`)).join(' | ')}) kind=${quotedWord(kindOf(value.candidates))} ;;`,
        ],
  );

export function bashScript({ verbs, options }: Completion): string {
  const names = verbs.flatMap(({ name, aliases }) => [name, ...aliases]);
  const flags = options.flatMap(({ short, long }) => (short === null ? [long] : [short, long]));
  return `# Completion for bash. To use it now: source <(livesnap completion bash)
# For all shells: livesnap completion bash >~/.local/share/bash-completion/completions/livesnap

# Sets what is known of a verb.
_livesnap_verb() {
  case $1 in
${verbs.flatMap(verbCase).join('\n')}
  help)
    verb=help
    options=''
    operands=(${quotedWord(`words ${names.join(' ')}`)})
    repeats=
    ;;
  *) verb=$1 ;;
  esac
}

# Sets what the value of an option is. Fails if the option takes none.
_livesnap_value() {
  case "$1 $2" in
  *' --store') kind=directories ;;
${verbs.flatMap(valueCases).join('\n')}
  *) return 1 ;;
  esac
}

# Sets COMPREPLY to what begins with $2.
_livesnap_reply() {
  local word
  case $1 in
  files)
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$2")
    ;;
  directories)
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$2")
    ;;
  machines | snapshots | machines-and-snapshots | tags)
    while IFS= read -r word; do
      [[ $word != "$2"* ]] || COMPREPLY+=("$word")
    done < <(livesnap list-names "$1" \${store:+"--store=$store"} </dev/null 2>/dev/null)
    # An exported directory is a snapshot, too.
    [[ $1 != *snapshots || \${#COMPREPLY[@]} -gt 0 ]] || _livesnap_reply directories "$2"
    ;;
  words\\ *)
    for word in \${1#words }; do
      [[ $word != "$2"* ]] || COMPREPLY+=("$word")
    done
    ;;
  esac
}

_livesnap() {
  local cur=\${COMP_WORDS[COMP_CWORD]} verb= store= kind= options= repeats= option= ended= word i n=0
  local -a operands=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    if [[ $word == = ]]; then
      # readline divides --option=value at the sign. An option that needs no value has one, then.
      [[ -n $option ]] || option=optional
    elif [[ -n $option ]]; then
      [[ $option != --store ]] || store=\${word/#\\~\\//~/}
      option=
    elif [[ -z $ended && $word == -- ]]; then
      ended=1
    elif [[ -z $ended && $word == -* ]]; then
      ! _livesnap_value "$verb" "$word" || option=$word
    elif [[ -z $verb ]]; then
      _livesnap_verb "$word"
    else
      n=$((n + 1))
    fi
  done
  [[ $cur != = ]] || cur=
  if [[ -n $option ]]; then
    kind=
    _livesnap_value "$verb" "$option"
    _livesnap_reply "$kind" "$cur"
  elif [[ -z $ended && $cur == -* ]]; then
    [[ -n $verb ]] || options=${quotedWord(flags.join(' '))}
    _livesnap_reply "words $options" "$cur"
  elif [[ -z $verb ]]; then
    _livesnap_reply ${quotedWord(`words ${[...names, 'help'].join(' ')}`)} "$cur"
  else
    [[ -z $repeats || $n -lt \${#operands[@]} ]] || n=$((\${#operands[@]} - 1))
    _livesnap_reply "\${operands[n]-}" "$cur"
  fi
}

complete -F _livesnap livesnap
`;
}
