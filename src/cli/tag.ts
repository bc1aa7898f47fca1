import { shortId } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'tag',
  summary: 'name a snapshot; the name is taken from whichever had it',
  operands: ['<snapshot>', '<label>'],
  options: {},
  async run({ operands, output, storeDir }) {
    const [reference, label] = operands as [string, string];
    const id = await withStore(storeDir, { write: true }, (store) => {
      const found = store.resolve(reference);
      store.setTag(found, label);
      return found;
    });
    output.result({ id, tag: label }, () => `${shortId(id)} is ${label}`);
    return 0;
  },
});
