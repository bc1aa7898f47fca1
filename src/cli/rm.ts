import { formatTags, nounFor } from '../format.js';
import { withStore } from '../host/open-store.js';
import type { RemovedSnapshot } from '../store/types.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'rm',
  operands: ['<snapshot...>'],
  options: {},
  notes: [
    'A snapshot is removed with all of its tags. If it has other tags than those',
    'given, give its ID. To remove only tags: livesnap untag.',
    'To free the disk space, run livesnap gc afterwards.',
  ].join('\n'),
  async run({ operands, output, storeDir }) {
    const removed = await withStore(storeDir, { write: true }, (store) => store.remove(operands));
    output.result({ removed }, () => removed.map(sentenceOf).join('\n'));
    return 0;
  },
});

function sentenceOf({ id, tags }: RemovedSnapshot): string {
  const labels = formatTags(tags);
  if (labels === null) return `Removed ${id}`;
  return `Removed ${id} with the ${nounFor(tags.length, 'tag')} ${labels}`;
}
