import { formatBytes, formatCount, formatRatio } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { StoreStats } from '../store/types.js';
import { formatPairs } from './table.js';
import { timeWithAge } from './time-option.js';
import { defineVerb } from './verb.js';

const verified = ({ verifiedBytes, packBytes, verifiedAt }: StoreStats): string | null =>
  verifiedAt === null
    ? null
    : `${Math.floor((100 * verifiedBytes) / packBytes)}%, the oldest part ${timeWithAge(verifiedAt)}`;

export const verb = defineVerb({
  name: 'stats',
  operands: [],
  options: {},
  async run({ output, storeDir }) {
    const found = await new StoreVerbs(storeDir).stats();
    output.result(found, () =>
      formatPairs([
        ['Snapshots', formatCount(found.snapshots)],
        ['Memory, disks, files', formatBytes(found.logicalBytes)],
        ['Nonzero data', formatBytes(found.nonZeroBytes)],
        ['Unique data', `${formatBytes(found.uniqueBytes)} in ${formatCount(found.chunks, 'chunk')}`],
        ['Stored, compressed', `${formatBytes(found.storedBytes)} in ${formatCount(found.packs, 'pack')}`],
        ['Index', formatBytes(found.indexBytes)],
        ['Reclaimable', formatBytes(found.deadBytes)],
        ['Verified', verified(found)],
        ['Ratio', formatRatio(found.ratio)],
      ]),
    );
    return 0;
  },
});
