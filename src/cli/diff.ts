import { formatBytes, formatCount } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { placesOf } from '../region-places.js';
import type { RegionDifference } from '../store/types.js';
import { joined, type Style, type Text } from './styled-text.js';
import { formatTable } from './table.js';
import { parseSnapshotRegion, type SnapshotRegion } from './values.js';
import { defineVerb, flag } from './verb.js';

export const verb = defineVerb({
  name: 'diff',
  operands: ['<snapshot>', '<other-snapshot>'],
  usage: '[options] <snapshot[:region]> <other-snapshot[:region]>',
  options: {
    ranges: flag('--ranges', 'Also list where they differ'),
  },
  notes: [
    'diff compares regions with the same name, in pages of 4 KiB. It compares lists',
    'of pages, and reads hardly any data.',
    'To compare two regions, name both. If you name only one, the other one is the',
    'only region of a stored file, or the region with the same name.',
    'Example: livesnap diff debian web:disk0',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const [a, b] = operands.map(parseSnapshotRegion) as [SnapshotRegion, SnapshotRegion];
    const found = await new StoreVerbs(storeDir).diff(a, b);
    const regions = options.ranges ? found : found.map(({ ranges, ...region }) => region);
    output.result({ regions }, () =>
      joined([tableOf(found), ...(options.ranges ? found.flatMap(linesOf) : [])]),
    );
    return 0;
  },
});

const tableOf = (regions: readonly RegionDifference[]): Text => {
  const style = ({ pages }: RegionDifference): Style | null => (pages > 0 ? 'caution' : null);
  const size = (bytes: number | null): string | null => (bytes === null ? null : formatBytes(bytes));
  return formatTable(regions, [
    { title: 'REGION', cell: nameOf },
    { title: 'SIZE', cell: ({ sizeBytes }) => size(sizeBytes[0]), right: true },
    { title: 'OTHER', cell: ({ sizeBytes }) => size(sizeBytes[1]), right: true },
    { title: 'PAGES', cell: ({ pages }) => formatCount(pages), right: true, style },
    { title: 'BYTES', cell: ({ bytes }) => formatBytes(bytes), right: true, style },
  ]);
};

const linesOf = (difference: RegionDifference): string[] =>
  difference.ranges.map(({ fromBytes, toBytes }) => placesOf(nameOf(difference), fromBytes, toBytes));

/** `disk0`, or `file → disk0` for regions with different names. */
function nameOf({ region, otherRegion }: RegionDifference): string {
  return region === otherRegion ? region : `${region} → ${otherRegion}`;
}
