import { formatCount, formatTags, formatTime, shortId } from '../format.js';
import type { ForgetGroup } from '../host/forget-policy.js';
import { StoreVerbs } from '../host/store-verbs.js';
import type { SnapshotSummary } from '../store/types.js';
import { FILTER_NOTES, snapshotFilter } from './filter-option.js';
import { freedText } from './gc-output.js';
import type { Output } from './output.js';
import { joined, type Text, text } from './styled-text.js';
import { formatTable } from './table.js';
import { parseGroupBy, parseKeepCount, parseSpan, parseText } from './values.js';
import { defineVerb, flag, repeated, valued } from './verb.js';

export const verb = defineVerb({
  name: 'forget',
  operands: ['[snapshot...]'],
  options: {
    last: valued('--keep-last <n>', 'Keep the newest N', parseKeepCount),
    hourly: valued('--keep-hourly <n>', 'Keep the newest of each of N hours', parseKeepCount),
    daily: valued('--keep-daily <n>', 'Keep the newest of each of N days', parseKeepCount),
    weekly: valued('--keep-weekly <n>', 'Keep the newest of each of N weeks', parseKeepCount),
    monthly: valued('--keep-monthly <n>', 'Keep the newest of each of N months', parseKeepCount),
    yearly: valued('--keep-yearly <n>', 'Keep the newest of each of N years', parseKeepCount),
    within: valued('--keep-within <span>', 'Keep what is newer than SPAN', parseSpan),
    tags: repeated('--keep-tag <pattern>', 'Keep what has such a tag; repeatable', parseText),
    groupBy: valued('--group-by <keys>', 'machine (default), label:KEY or none', parseGroupBy),
    filter: snapshotFilter('Consider only snapshots that pass; repeatable'),
    prune: flag('--prune', 'Run gc afterwards'),
    dryRun: flag('--dry-run', 'Show what would be removed, remove nothing'),
  },
  notes: [
    'In each group, snapshots that no --keep rule keeps are removed. With SNAPSHOT,',
    'only those are considered: tags, IDs and quoted patterns of tags.',
    'N may be unlimited. Hours, days and so on without a snapshot do not count.',
    'SPAN is like 2y5m7d3h: years, months, days and hours before the newest one.',
    ...FILTER_NOTES,
  ].join('\n'),
  async run({ operands: snapshots, options, output, storeDir }) {
    const { groupBy, filter: filters, prune, dryRun, ...rules } = options;
    const store = new StoreVerbs(storeDir);
    const groups = await store.forget(rules, { snapshots, filters, groupBy, dryRun });
    const removed = groups.flatMap(({ remove }) => remove);
    await nameUsers(output, removed);
    const freed =
      prune && !dryRun
        ? await output.withProgress('collecting', (onProgress) => store.gc({ onProgress }))
        : null;
    const kept = groups.reduce((sum, { keep }) => sum + keep.length, 0);
    output.result(
      {
        dryRun,
        groups: groups.map(({ title, keep, remove }) => ({
          title,
          kept: keep.map(({ snapshot, reasons }) => ({ ...factsOf(snapshot), reasons })),
          removed: remove.map(factsOf),
        })),
        gc: freed && { removedChunks: freed.removedChunks, freedBytes: freed.freedBytes },
      },
      () =>
        joined(
          [
            ...groups.map(tableOf),
            [
              `${dryRun ? 'Would remove' : 'Removed'} ${formatCount(removed.length, 'snapshot')}` +
                ` and ${dryRun ? 'keep' : 'kept'} ${formatCount(kept)}`,
              ...(freed === null ? [] : [`Freed ${freedText(freed)}`]),
            ].join('\n'),
          ],
          '\n\n',
        ),
      () => removed.map(({ id }) => id).join('\n'),
    );
    return 0;
  },
});

const factsOf = ({ id, tags, createdAt }: SnapshotSummary) => ({ id, tags, createdAt });

function tableOf({ title, keep, remove }: ForgetGroup): Text {
  const rows = [
    ...keep.map(({ snapshot, reasons }) => ({ snapshot, action: 'keep', reasons: reasons.join(', ') })),
    ...remove.map((snapshot) => ({ snapshot, action: 'remove', reasons: null })),
  ];
  const table = formatTable(rows, [
    { title: 'ID', cell: ({ snapshot }) => shortId(snapshot.id) },
    { title: 'CREATED', cell: ({ snapshot }) => formatTime(snapshot.createdAt), spare: 2 },
    { title: 'TAGS', cell: ({ snapshot }) => formatTags(snapshot.tags), cutTo: 12, spare: 1 },
    {
      title: 'ACTION',
      cell: ({ action }) => action,
      style: ({ action }) => (action === 'remove' ? 'bad' : null),
    },
    { title: 'REASONS', cell: ({ reasons }) => reasons, cutTo: 12 },
  ]);
  return text`${title}\n${table}`;
}

/** A machine needs the snapshot that it was restored from only for its data, which stays as long as it is read. */
async function nameUsers(output: Output, removed: readonly SnapshotSummary[]): Promise<void> {
  if (removed.length === 0) return;
  const { machineInfos } = await import('../host/machine-info.js');
  const gone = new Set(removed.map(({ id }) => id));
  for (const { name, snapshot, state } of await machineInfos())
    if (snapshot !== null && gone.has(snapshot) && state !== 'gone' && state !== 'failed')
      output.say(
        `${name} was last saved to or restored from ${shortId(snapshot)}. What it needs of it stays until it ends.`,
      );
}
