import { formatBytes, formatTags, shortId } from '../format.js';
import { StoreVerbs } from '../host/store-verbs.js';
import { FILTER_NOTES, snapshotFilter } from './filter-option.js';
import { formatTable } from './table.js';
import { timeFormatter, timeOption } from './time-option.js';
import { parseCount, parseMoment, parseWord } from './values.js';
import { defineVerb, flag, valued } from './verb.js';

export const verb = defineVerb({
  name: 'ls',
  operands: [],
  options: {
    filter: snapshotFilter('Only snapshots that pass; repeatable'),
    since: valued('--since <time>', 'Only snapshots made at TIME or later', (text) => parseMoment(text)),
    until: valued('--until <time>', 'Only snapshots made before TIME', (text) => parseMoment(text)),
    sort: valued(
      '--sort <key>',
      'created (default), size, stored or name',
      parseWord('created', 'size', 'stored', 'name'),
    ),
    reverse: flag('-r, --reverse', 'Reverse the order'),
    limit: valued('--limit <n>', 'Only the first N', parseCount),
    time: timeOption,
  },
  notes: [
    ...FILTER_NOTES,
    'TIME is a time ago (90s, 10m, 8h, 7d) or a local time: 2026-01-31,',
    '2026-01-31T18:30. By created the oldest is first, by size the largest.',
  ].join('\n'),
  async run({ options, output, storeDir }) {
    const { filter: filters, since: sinceMs, until: untilMs, sort, reverse, limit } = options;
    const choice = { filters, sinceMs, untilMs, sort, reverse, limit };
    const rows = await new StoreVerbs(storeDir).list(choice);
    const time = timeFormatter(options.time);
    output.result(
      rows,
      () =>
        formatTable(rows, [
          { title: 'ID', cell: (row) => shortId(row.id) },
          { title: 'TAGS', cell: (row) => formatTags(row.tags), cutTo: 12, spare: 7 },
          { title: 'KIND', cell: (row) => row.kind, spare: 3 },
          { title: 'NAME', cell: (row) => row.vm, cutTo: 8, spare: 6 },
          {
            title: 'PARENT',
            cell: (row) => (row.parent === null ? null : shortId(row.parent)),
            spare: 1,
          },
          { title: 'CREATED', cell: (row) => time(row.createdAt), spare: 5 },
          {
            title: 'SIZE',
            cell: (row) => formatBytes(row.memoryBytes + row.diskBytes),
            right: true,
            spare: 4,
          },
          { title: 'STORED', cell: (row) => formatBytes(row.storedBytes), right: true, spare: 2 },
        ]),
      () => rows.map((row) => row.id).join('\n'),
    );
    return 0;
  },
});
