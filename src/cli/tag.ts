import { shortId } from './format.js';
import { taggedSentence } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'tag',
  operands: ['<snapshot>', '<tag>'],
  options: {},
  notes: 'A snapshot has at most one tag: a new tag replaces the old one.',
  async run({ operands, output, storeDir }) {
    const [reference, tag] = operands as [string, string];
    const { id, movedFrom, replacedTag } = await withStore(storeDir, { write: true }, (store) =>
      store.setTag(reference, tag),
    );
    output.result({ id, tag, movedFrom, replacedTag }, () => {
      const removed = replacedTag === null ? '' : `\nRemoved the tag ${replacedTag} from ${shortId(id)}`;
      return `${taggedSentence(id, tag, movedFrom)}${removed}`;
    });
    return 0;
  },
});
