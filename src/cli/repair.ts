import { printable } from './output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'repair',
  summary: "rebuild the store's index from its files",
  operands: [],
  options: {},
  async run({ output, storeDir }) {
    const { Store } = await import('../store/store.js');
    const { actions } = await output.withProgress('repairing', (progress) =>
      Store.repair(storeDir, progress),
    );
    output.result({ actions }, () => actions.map(printable).join('\n'));
    return 0;
  },
});
