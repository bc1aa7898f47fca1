import { LivesnapError } from '../errors.js';
import { announce, printCopies } from './copy-output.js';
import { requireUtf8 } from './exact-arguments.js';
import { parseText } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'copy',
  operands: ['<snapshot...>'],
  usage: '(--to <remote> | --from <remote>) [options] <snapshot...>',
  options: {
    to: valued('--to <remote>', 'Destination store', parseText),
    from: valued('--from <remote>', 'Source store', parseText),
  },
  notes: [
    'REMOTE is one of:',
    '  DIR                             a directory on this host',
    '  ssh://[user@]host[:port]/dir    a directory on another host that has livesnap',
    '  http(s)://host/path             a store on a web server (only with --from)',
    'Only pages that the destination lacks are sent.',
    'If a copy is interrupted, run the same command again: it resumes.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const { to, from } = options;
    if ((to === undefined) === (from === undefined))
      throw new LivesnapError('USAGE', 'copy needs --to or --from, and not both', {
        hint: 'Example: livesnap copy SNAPSHOT --to /other/store',
      });
    const { copySnapshots } = await import('../store/remote/copy.js');
    const results = await output.withProgress('copying', (progress) =>
      copySnapshots({
        storeDir,
        direction: to === undefined ? 'from' : 'to',
        remote: requireUtf8(to ?? from!),
        refs: operands,
        onPlan: (plan) => announce(output, plan),
        onNotice: (line) => output.say(line),
        progress,
      }),
    );
    printCopies(output, results);
    return 0;
  },
});
