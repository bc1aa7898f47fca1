import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'rm',
  operands: ['<snapshot...>'],
  options: {},
  notes: 'To free the disk space, run livesnap gc afterwards.',
  async run({ operands, output, storeDir }) {
    const removed = await withStore(storeDir, { write: true }, (store) => store.remove(operands));
    output.result({ removed }, () => removed.map((id) => `Removed ${id}`).join('\n'));
    return 0;
  },
});
