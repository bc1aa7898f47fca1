import { formatBytes, formatPairs } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'stats',
  summary: 'say what the store holds and what it takes',
  operands: [],
  options: {},
  async run({ output, storeDir }) {
    const found = await withStore(storeDir, { write: false }, (store) => store.stats());
    output.result(found, () =>
      formatPairs([
        ['snapshots', String(found.snapshots)],
        ['memory and files in them', formatBytes(found.logicalBytes)],
        ['of that not zero', formatBytes(found.nonZeroBytes)],
        [
          'of that distinct',
          `${formatBytes(found.uniqueBytes)} in ${found.chunks.toLocaleString('en')} chunks`,
        ],
        [
          'stored, compressed',
          `${formatBytes(found.storedBytes)} in ${found.packs.toLocaleString('en')} packs`,
        ],
        ['index', formatBytes(found.indexBytes)],
        ['dead, for gc', formatBytes(found.deadBytes)],
        ['ratio', `${found.ratio.toFixed(found.ratio < 100 ? 1 : 0)} : 1`],
      ]),
    );
    return 0;
  },
});
