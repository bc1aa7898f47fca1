import { formatBytes, formatTags, formatTime, shortId } from '../format.js';
import { withStore } from '../host/open-store.js';
import { formatTable } from './output.js';
import { defineVerb } from './verb.js';

export const verb = defineVerb({
  name: 'ls',
  operands: [],
  options: {},
  async run({ output, storeDir }) {
    const rows = await withStore(storeDir, { write: false }, (store) => store.list());
    output.result(
      rows.map(({ id, tags, kind, vm, parent, createdAt, memoryBytes, diskBytes, storedBytes }) => ({
        id,
        tags,
        kind,
        vm,
        parent,
        createdAt,
        memoryBytes,
        diskBytes,
        storedBytes,
      })),
      () =>
        formatTable(rows, [
          { title: 'ID', cell: (row) => shortId(row.id) },
          { title: 'TAGS', cell: (row) => formatTags(row.tags) },
          { title: 'KIND', cell: (row) => row.kind },
          { title: 'NAME', cell: (row) => row.vm },
          { title: 'PARENT', cell: (row) => (row.parent === null ? null : shortId(row.parent)) },
          { title: 'CREATED', cell: (row) => formatTime(row.createdAt) },
          { title: 'SIZE', cell: (row) => formatBytes(row.memoryBytes + row.diskBytes), right: true },
          { title: 'STORED', cell: (row) => formatBytes(row.storedBytes), right: true },
        ]),
      () => rows.map((row) => row.id).join('\n'),
    );
    return 0;
  },
});
