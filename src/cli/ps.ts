import { formatBytes, formatTime, shortId } from '../format.js';
import { formatTable, printable } from './output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'ps',
  operands: [],
  usesStore: false,
  options: {},
  async run({ output }) {
    const { machineInfos } = await import('../host/machine-info.js');
    const rows = await machineInfos();
    output.result(
      rows,
      () => {
        const table = formatTable(rows, [
          { title: 'NAME', cell: (row) => row.name },
          { title: 'PID', cell: (row) => row.pid?.toString() ?? null, right: true },
          { title: 'STATE', cell: (row) => row.state },
          {
            title: 'MEMORY',
            cell: (row) => (row.memoryBytes === null ? null : formatBytes(row.memoryBytes)),
            right: true,
          },
          { title: 'CPUS', cell: (row) => row.cpus?.toString() ?? null, right: true },
          { title: 'STARTED', cell: (row) => (row.startedAt === null ? null : formatTime(row.startedAt)) },
          { title: 'SNAPSHOT', cell: (row) => (row.snapshot === null ? null : shortId(row.snapshot)) },
        ]);
        const reasons = rows.filter((row) => row.reason !== undefined);
        return [table, ...reasons.map((row) => printable(`${row.name} ${row.state}: ${row.reason}`))].join(
          '\n',
        );
      },
      () => rows.map((row) => row.name).join('\n'),
    );
    return 0;
  },
});
