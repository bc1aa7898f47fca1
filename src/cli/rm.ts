import { formatTags, nounFor } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { RemovedSnapshot } from '../store/types.js';
import { defineVerb, flag } from './verb.js';

export const verb = defineVerb({
  name: 'rm',
  operands: ['<snapshot...>'],
  options: { dryRun: flag('--dry-run', 'Show what would be removed, remove nothing') },
  notes: [
    'A snapshot is removed with all of its tags. If it has other tags than those',
    'given, give its ID. To remove only tags: livesnap untag.',
    "Quoted patterns stand for all tags that match: 'agent-*', 'run-?'.",
    'To free the disk space, run livesnap gc afterwards.',
  ].join('\n'),
  async run({ operands, options: { dryRun }, output, storeDir }) {
    const removed = await new StoreVerbs(storeDir).remove(operands, { dryRun });
    const verb = dryRun ? 'Would remove' : 'Removed';
    output.result({ removed }, () => removed.map((one) => `${verb} ${nameOf(one)}`).join('\n'));
    return 0;
  },
});

function nameOf({ id, tags }: RemovedSnapshot): string {
  const labels = formatTags(tags);
  return labels === null ? id : `${id} with the ${nounFor(tags.length, 'tag')} ${labels}`;
}
