import { LivesnapError } from '../errors.js';
import { announce, printCopies } from './copy-output.js';
import { parseText } from './values.js';
import { defineVerb, valued } from './verb.js';

export const verb = defineVerb({
  name: 'copy',
  summary: 'copy snapshots to another store, or from it',
  operands: ['<snapshot...>'],
  options: {
    to: valued('--to <remote>', 'the store to copy to', parseText),
    from: valued('--from <remote>', 'the store to copy from', parseText),
  },
  notes: [
    'REMOTE is a directory, ssh://[user@]host[:port]/dir (livesnap must be there, too), or, to copy from,',
    'http(s)://host/path of a web server that serves a store’s directory.',
    'Only chunks that the other side lacks travel. A copy that was cut goes on where it stopped.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const { to, from } = options;
    if ((to === undefined) === (from === undefined))
      throw new LivesnapError('USAGE', 'copy needs either --to or --from', {
        hint: 'livesnap copy SNAPSHOT --to /other/store, or --from ssh://host/dir.',
      });
    const { copySnapshots } = await import('../store/remote/copy.js');
    const results = await output.withProgress('copying', (progress) =>
      copySnapshots({
        storeDir,
        direction: to === undefined ? 'from' : 'to',
        remote: to ?? from!,
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
