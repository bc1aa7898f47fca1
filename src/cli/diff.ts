import { placesOf } from '../region-places.js';
import type { RegionDifference } from '../store/types.js';
import { formatBytes, formatCount } from './format.js';
import { formatTable } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb, flag } from './verb.js';

export const verb = defineVerb({
  name: 'diff',
  operands: ['<snapshot>', '<other-snapshot>'],
  options: {
    ranges: flag('--ranges', 'Also list where they differ'),
  },
  notes: [
    'diff compares regions with the same name, in pages of 4 KiB. It reads which',
    'pages the snapshots have, and hardly any data.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const [a, b] = operands as [string, string];
    const found = await withStore(storeDir, { write: false }, (store) => store.diff(a, b));
    const regions = options.ranges ? found : found.map(({ ranges, ...region }) => region);
    output.result({ regions }, () =>
      [tableOf(found), ...(options.ranges ? found.flatMap(linesOf) : [])].join('\n'),
    );
    return 0;
  },
});

const tableOf = (regions: readonly RegionDifference[]): string => {
  const size = (bytes: number | null): string | null => (bytes === null ? null : formatBytes(bytes));
  return formatTable(regions, [
    { title: 'REGION', cell: ({ region }) => region },
    { title: 'SIZE', cell: ({ sizeBytes }) => size(sizeBytes[0]), right: true },
    { title: 'OTHER', cell: ({ sizeBytes }) => size(sizeBytes[1]), right: true },
    { title: 'PAGES', cell: ({ pages }) => formatCount(pages), right: true },
    { title: 'BYTES', cell: ({ bytes }) => formatBytes(bytes), right: true },
  ]);
};

const linesOf = ({ region, ranges }: RegionDifference): string[] =>
  ranges.map(({ fromBytes, toBytes }) => placesOf(region, fromBytes, toBytes));
