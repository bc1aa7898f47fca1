import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'rm',
  summary: 'remove snapshots; gc then frees what only they held',
  operands: ['<snapshot...>'],
  options: {},
  async run({ operands, output, storeDir }) {
    const removed = await withStore(storeDir, { write: true }, (store) => store.remove(operands));
    output.result({ removed }, () => removed.map((id) => `removed ${id}`).join('\n'));
    return 0;
  },
});
