import { formatBytes, formatCount } from './format.js';
import { withStore } from './store-access.js';
import { parseSize } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'gc',
  operands: [],
  options: {
    dryRun: flag('--dry-run', 'Show what would be freed, delete nothing'),
    maxRepack: valued('--max-repack <size>', 'Rewrite at most SIZE of pack files', parseSize),
  },
  notes: [
    'The store keeps data in pack files. gc deletes packs in which nothing is',
    'referenced. It rewrites other packs to drop their unreferenced data.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { dryRun, maxRepack } = options;
    const { removedChunks, freedBytes } = await output.withProgress('collecting', (progress) =>
      withStore(storeDir, { write: !dryRun }, (store) =>
        store.gc({ dryRun, ...(maxRepack === undefined ? {} : { maxRepackBytes: maxRepack }) }, progress),
      ),
    );
    output.result({ removedChunks, freedBytes }, () => {
      // Files that no index lists are deleted whole; nobody knows their chunks.
      const chunks = removedChunks === 0 ? '' : ` (${formatCount(removedChunks, 'chunk')})`;
      const freed = `${formatBytes(freedBytes)}${chunks}`;
      return dryRun ? `Would free ${freed}` : `Freed ${freed}`;
    });
    return 0;
  },
});
