import { formatBytes } from './output.js';
import { withStore } from './store-access.js';
import { parseSize } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'gc',
  summary: 'free what no snapshot holds',
  operands: [],
  options: {
    dryRun: flag('--dry-run', 'only say what would be freed'),
    maxRepack: valued('--max-repack <size>', 'rewrite at most so much of packs with dead weight', parseSize),
  },
  async run({ options, output, storeDir }) {
    const { dryRun, maxRepack } = options;
    const { removedChunks, freedBytes } = await output.withProgress('collecting', (progress) =>
      withStore(storeDir, { write: !dryRun }, (store) =>
        store.gc({ dryRun, ...(maxRepack === undefined ? {} : { maxRepackBytes: maxRepack }) }, progress),
      ),
    );
    output.result({ removedChunks, freedBytes }, () => {
      const what = `${removedChunks.toLocaleString('en')} chunks, ${formatBytes(freedBytes)}`;
      return dryRun ? `would free ${what}` : `freed ${what}`;
    });
    return 0;
  },
});
