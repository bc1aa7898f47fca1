import { shortId, taggedSentence } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'tag',
  summary: 'name a snapshot; the name is taken from whichever had it',
  operands: ['<snapshot>', '<label>'],
  options: {},
  async run({ operands, output, storeDir }) {
    const [reference, label] = operands as [string, string];
    const { id, movedFrom, replacedTag } = await withStore(storeDir, { write: true }, (store) =>
      store.setTag(reference, label),
    );
    output.result({ id, tag: label, movedFrom, replacedTag }, () => {
      const removed = replacedTag === null ? '' : `\n${shortId(id)} is no longer ${replacedTag}`;
      return `${taggedSentence(id, label, movedFrom)}${removed}`;
    });
    return 0;
  },
});
