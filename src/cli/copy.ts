import { LivesnapError } from '../errors.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { announce, printAll, printCopies } from './copy-output.js';
import { requireUtf8 } from './exact-arguments.js';
import { FILTER_NOTES, snapshotFilter } from './filter-option.js';
import { parseText } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'copy',
  operands: ['[snapshot...]'],
  usage: '(--to|--from) <remote> [options] (<snapshot...> | --all)',
  options: {
    to: valued('--to <remote>', 'Destination store', parseText),
    from: valued('--from <remote>', 'Source store', parseText),
    all: flag('--all', 'Copy all snapshots, parents first'),
    filter: snapshotFilter('With --all: only snapshots that pass; repeatable'),
  },
  notes: [
    'REMOTE is one of:',
    '  DIR                             a directory on this host',
    '  ssh://[user@]host[:port]/dir    a directory on another host that has livesnap',
    '  http(s)://host/path             a store on a web server (only with --from)',
    'Only pages that the destination lacks are sent.',
    'If a copy is interrupted, run the same command again: it resumes.',
    ...FILTER_NOTES,
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const { to, from, all, filter: filters } = options;
    if ((to === undefined) === (from === undefined))
      throw new LivesnapError('USAGE', 'copy needs --to or --from, and not both', {
        hint: 'Example: livesnap copy SNAPSHOT --to /other/store',
      });
    if (all === operands.length > 0)
      throw new LivesnapError('USAGE', 'copy needs snapshots or --all, and not both', {
        hint: 'Example: livesnap copy --all --to /other/store',
      });
    if (filters.length > 0 && !all)
      throw new LivesnapError('USAGE', '--filter needs --all', {
        hint: 'Example: livesnap copy --all --filter label=course=os --to /other/store',
      });
    const onPlan = (plan: Parameters<typeof announce>[1]): void => announce(output, plan);
    const onNotice = (line: string): void => output.say(line);
    const remote = to === undefined ? { from: requireUtf8(from!) } : { to: requireUtf8(to) };
    if (all) {
      const result = await output.withProgress('copying', (onProgress) =>
        new StoreVerbs(storeDir).copyAll(remote, { filters, onPlan, onNotice, onProgress }),
      );
      return printAll(output, result);
    }
    const results = await output.withProgress('copying', (onProgress) =>
      new StoreVerbs(storeDir).copy(operands, remote, { onPlan, onNotice, onProgress }),
    );
    printCopies(output, results);
    return 0;
  },
});
