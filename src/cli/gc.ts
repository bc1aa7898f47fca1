import { formatBytes } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb, flag } from './verb.js';

export const verb = defineVerb({
  name: 'gc',
  summary: 'free what no snapshot holds',
  operands: [],
  options: { dryRun: flag('--dry-run', 'only say what would be freed') },
  async run({ options, output, storeDir }) {
    const { dryRun } = options;
    const { removedChunks, freedBytes } = await output.withProgress('collecting', (progress) =>
      withStore(storeDir, { write: true }, (store) => store.gc({ dryRun }, progress)),
    );
    output.result({ removedChunks, freedBytes }, () => {
      const what = `${removedChunks.toLocaleString('en')} chunks, ${formatBytes(freedBytes)}`;
      return dryRun ? `would free ${what}` : `freed ${what}`;
    });
    return 0;
  },
});
