import { formatBytes, formatDuration, formatTags } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { PAGE_BYTES, type SnapshotSummary } from '../page-stream.js';
import { kindOf, typeOption } from './machine-or-snapshot.js';
import { joined, printable, styled, type Text } from './styled-text.js';
import { formatPairs, formatTable } from './table.js';
import { timeWithAge } from './time-option.js';
import { defineVerb } from './verb.js';

/** A file has one size. A machine has memory and disks. */
function sizes({ kind, memoryBytes, diskBytes }: SnapshotSummary): [string, string | null][] {
  if (kind === 'file') return [['Size', formatBytes(memoryBytes + diskBytes)]];
  const disks: [string, string | null] = ['Disks', diskBytes === 0 ? null : formatBytes(diskBytes)];
  return kind === 'disk' ? [disks] : [['Memory', formatBytes(memoryBytes)], disks];
}

const pages = (count: number): string => formatBytes(count * PAGE_BYTES);

export const verb = defineVerb({
  name: 'show',
  operands: ['<machine|snapshot>'],
  options: { type: typeOption('What to show, if both have the name') },
  notes: [
    'SNAPSHOT is a tag, an ID, or a unique prefix of an ID. MACHINE is a name, an',
    'ID, or a unique prefix of an ID.',
  ].join('\n'),
  async run({ operands, options, output, storeDir }) {
    const [ref] = operands as [string];
    const { Host } = await import('../host/host.js');
    const host = new Host(storeDir);
    if ((await kindOf(host, ref, options.type)) === 'machine') {
      const { showMachine } = await import('./show-machine.js');
      await showMachine(host, ref, output);
      return 0;
    }
    const found = await new StoreVerbs(storeDir).details(ref);
    output.result(
      found,
      () => {
        const pairs = formatPairs([
          ['ID', found.id],
          ['Tags', formatTags(found.tags)],
          ['Kind', found.kind],
          ['Name', found.vm],
          ['Parent', found.parent],
          ['Created', timeWithAge(found.createdAt)],
          ['Pause', found.pauseMs === null ? null : formatDuration(found.pauseMs)],
          ...sizes(found),
          ['Stored', `${formatBytes(found.storedBytes)} when saved`],
          ['Unique', `${formatBytes(found.uniqueBytes)}, freed by rm and gc`],
          ['Verified', found.verifiedAt === null ? null : timeWithAge(found.verifiedAt)],
        ]);
        const regions = formatTable(found.regions, [
          { title: 'REGION', cell: (region) => region.name },
          { title: 'SIZE', cell: (region) => formatBytes(region.sizeBytes), right: true },
          { title: 'NONZERO', cell: (region) => pages(region.nonZeroPages), right: true },
          {
            title: 'CHANGED',
            cell: ({ changedPages }) => (changedPages === null ? null : pages(changedPages)),
            right: true,
          },
        ]);
        const section = (title: string, value: unknown): Text[] =>
          value === null
            ? []
            : [
                '',
                styled('heading', title),
                ...JSON.stringify(value, null, 2).split('\n').slice(1, -1).map(printable),
              ];
        return joined([
          pairs,
          '',
          regions,
          ...section('Machine', found.machine),
          ...section('Host', found.host),
        ]);
      },
      () => found.id,
    );
    return 0;
  },
});
