# Prints what zsh offers for a command line, one a line. Arguments: the directory of _livesnap, the command line.
zmodload zsh/zpty
hits=$(mktemp)
zpty shell "exec zsh -f -i"
zpty -w shell "fpath=(${(q)1} \$fpath) HITS=${(q)hits}; autoload -Uz compinit; compinit -D -u"
zpty -w shell '
  bindkey "^I" complete-word
  # A long list would ask whether to show it.
  setopt no_auto_list
  comppostfuncs=(exit)
  # The first call of compadd that stores matches elsewhere is of the completion system itself.
  compadd () {
    if [[ ${@[1,(i)(-|--)]} == *-[OAD]\ * ]]; then
      builtin compadd "$@"
      return
    fi
    local -a found
    builtin compadd -A found "$@"
    (($#found == 0)) || print -rl -- $IPREFIX${^found} >>$HITS
    builtin compadd "$@"
  }
  print REA""DY'
zpty -r shell line '*READY*'
zpty -w -n shell "$2"$'\t'
# Until comppostfuncs ends the shell.
while zpty -r shell line; do :; done
sort -u $hits
rm -f $hits
