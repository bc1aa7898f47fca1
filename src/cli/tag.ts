import { StoreVerbs } from '../host/store-verbs.js';
import { taggedSentence } from './output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'tag',
  operands: ['<snapshot>', '<tag...>'],
  options: {},
  notes: 'A snapshot keeps the tags that it has. To remove tags: livesnap untag.',
  async run({ operands, output, storeDir }) {
    const [reference, ...added] = operands as [string, ...string[]];
    const tagged = await new StoreVerbs(storeDir).tag(reference, added);
    const { id, movedTags } = tagged;
    const movedFrom = new Map(movedTags.map(({ tag, from }) => [tag, from]));
    output.result(tagged, () =>
      [...new Set(added)].map((tag) => taggedSentence(id, tag, movedFrom.get(tag) ?? null)).join('\n'),
    );
    return 0;
  },
});
