import { bashScript } from './completion-bash.js';
import { fishScript } from './completion-fish.js';
import { type Completion, completionModel, SHELLS } from './completion-model.js';
import { zshScript } from './completion-zsh.js';
import { parseWord } from './values.js';
import { defineVerb } from './verb.js';

const SCRIPTS: Record<(typeof SHELLS)[number], (model: Completion) => string> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export const verb = defineVerb({
  name: 'completion',
  operands: ['<shell>'],
  usesStore: false,
  options: {},
  notes: [
    'SHELL is one of:',
    '  bash    source <(livesnap completion bash)',
    '  zsh     livesnap completion zsh >DIR/_livesnap, where DIR is in $fpath',
    '  fish    livesnap completion fish >~/.config/fish/completions/livesnap.fish',
    'Names of machines, snapshots and tags are completed, too.',
  ].join('\n'),
  async run({ operands, output, verbs }) {
    const shell = parseWord(...SHELLS)(operands[0]!);
    const script = SCRIPTS[shell](await completionModel(verbs));
    const text = () => script.trimEnd();
    output.result({ shell, script }, text, text);
    return 0;
  },
});
