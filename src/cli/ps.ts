import { formatBytes, shortId } from '../format.js';
import { chooseMachines, parseMachineFilter } from '../host/machine-filter.js';
import { styleOfState } from './machine-state.js';
import { joined, printable, styled, text } from './styled-text.js';
import { formatTable } from './table.js';
import { timeFormatter, timeOption } from './time-option.js';
import { defineVerb, repeated } from './verb.js';

export const verb = defineVerb({
  name: 'ps',
  operands: [],
  usesStore: false,
  options: {
    filter: repeated('--filter <filter>', 'Only machines that pass; repeatable', parseMachineFilter),
    time: timeOption,
  },
  notes: [
    'FILTER is one of:',
    '  label=KEY, label=KEY=VALUE',
    '  name=PATTERN                  with * for any characters, ? for one',
    '  state=STATE                   running, paused, stopped, starting, failed, ...',
    'Filters with the same key mean or, and with different keys and.',
  ].join('\n'),
  async run({ options, output }) {
    const { machineInfos } = await import('../host/machine-info.js');
    const rows = chooseMachines(await machineInfos(), options.filter);
    const time = timeFormatter(options.time);
    output.result(
      rows.map(({ saves: _, ...row }) => row),
      () => {
        const table = formatTable(rows, [
          { title: 'NAME', cell: (row) => row.name },
          { title: 'PID', cell: (row) => row.pid?.toString() ?? null, right: true, spare: 2 },
          { title: 'STATE', cell: (row) => row.state, style: (row) => styleOfState(row.state) },
          {
            title: 'MEMORY',
            cell: (row) => (row.memoryBytes === null ? null : formatBytes(row.memoryBytes)),
            right: true,
            spare: 4,
          },
          { title: 'CPUS', cell: (row) => row.cpus?.toString() ?? null, right: true, spare: 3 },
          { title: 'STARTED', cell: (row) => time(row.startedAt), spare: 5 },
          {
            title: 'SNAPSHOT',
            cell: (row) => (row.snapshot === null ? null : shortId(row.snapshot)),
            spare: 1,
          },
        ]);
        const reasons = rows.filter((row) => row.reason !== undefined);
        return joined([
          table,
          ...reasons.map(
            ({ name, state, reason }) =>
              text`${printable(name)} ${styled(styleOfState(state), state)}: ${printable(reason!)}`,
          ),
        ]);
      },
      () => rows.map((row) => row.name).join('\n'),
    );
    return 0;
  },
});
