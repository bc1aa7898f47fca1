import type { SnapshotSummary } from '../store/types.js';
import { formatBytes, formatPairs, formatTable, formatTime, printable } from './output.js';
import { withStore } from './store-access.js';
import { defineVerb } from './verb.js';

/** A file has one size; a machine has memory and disks. */
const sizes = ({ kind, memoryBytes, diskBytes }: SnapshotSummary): [string, string | null][] =>
  kind === 'file'
    ? [['size', formatBytes(memoryBytes + diskBytes)]]
    : [
        ['memory', formatBytes(memoryBytes)],
        ['disks', diskBytes === 0 ? null : formatBytes(diskBytes)],
      ];

export const verb = defineVerb({
  name: 'show',
  summary: 'describe a snapshot',
  operands: ['<snapshot>'],
  options: {},
  notes: 'SNAPSHOT is a tag, else an id, else the beginning of just one id.',
  async run({ operands, output, storeDir }) {
    const found = await withStore(storeDir, { write: false }, (store) => store.show(operands[0]!));
    output.result(
      found,
      () => {
        const pairs = formatPairs([
          ['id', found.id],
          ['tag', found.tag],
          ['kind', found.kind],
          ['name', found.vm],
          ['parent', found.parent],
          ['created', formatTime(found.createdAt)],
          ...sizes(found),
          ['stored', `${formatBytes(found.storedBytes)} when it was saved`],
          ['unique', `${formatBytes(found.uniqueBytes)} would be freed by rm and gc`],
        ]);
        const regions = formatTable(found.regions, [
          { title: 'REGION', cell: (region) => region.name },
          { title: 'SIZE', cell: (region) => formatBytes(region.sizeBytes), right: true },
          { title: 'NOT ZERO', cell: (region) => formatBytes(region.nonZeroPages * 4096), right: true },
        ]);
        const plain = (title: string, value: unknown) =>
          value === null
            ? []
            : ['', title, ...JSON.stringify(value, null, 2).split('\n').slice(1, -1).map(printable)];
        return [pairs, '', regions, ...plain('machine', found.machine), ...plain('host', found.host)].join(
          '\n',
        );
      },
      () => found.id,
    );
    return 0;
  },
});
