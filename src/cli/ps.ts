import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import type { MachineState } from '../vmm/machine-types.js';
import { formatBytes, formatTime, shortId } from './format.js';
import { formatTable, printable } from './output.js';
import { defineVerb } from './verb.js';

/** How long a machine's process may take to answer before it is shown as `unresponsive`. */
const ANSWER_TIMEOUT_MS = 3000;

interface Row {
  readonly name: string;
  readonly pid: number | null;
  /** `gone`: its process died. `failed`: it ended with an error. `starting`: it does not run yet. */
  readonly state: MachineState | 'starting' | 'unresponsive' | 'failed' | 'gone';
  readonly memoryBytes: number | null;
  readonly cpus: number | null;
  readonly startedAt: string | null;
  readonly snapshot: string | null;
  /** The error, if the state is `failed`; why the host paused it, if the state is `paused`. */
  readonly reason?: string;
}

async function look(directory: import('../server/run-directory.js').RunDirectory): Promise<Row | null> {
  const { MachineClient } = await import('../server/client.js');
  const found = await directory.look();
  if (found === 'absent') return null;
  const record = await directory.readRecord();
  const row: Row = {
    name: directory.name,
    pid: record?.pid ?? null,
    state: 'gone',
    memoryBytes: record?.memoryBytes ?? null,
    cpus: record?.cpus ?? null,
    startedAt: record?.startedAt ?? null,
    snapshot: record?.snapshot ?? null,
  };
  if (found === 'dead') return record?.failure ? { ...row, state: 'failed', reason: record.failure } : row;
  try {
    const { pid, state, memoryBytes, cpus, startedAt, snapshot, problem } = await new MachineClient(
      directory,
    ).describe(ANSWER_TIMEOUT_MS);
    const found = { name: directory.name, pid, state, memoryBytes, cpus, startedAt, snapshot };
    return problem ? { ...found, reason: problem } : found;
  } catch (error) {
    const now = await directory.look();
    if (now === 'absent') return null;
    if (now === 'dead') return row;
    const hasEnded = error instanceof LivesnapError && error.code === 'MACHINE_GONE';
    return { ...row, state: record === null ? 'starting' : hasEnded ? 'stopped' : 'unresponsive' };
  }
}

export const verb = defineVerb({
  name: 'ps',
  operands: [],
  usesStore: false,
  options: {},
  async run({ output }) {
    const { listRunDirectories } = await import('../server/run-directory.js');
    const looked = await Promise.all((await listRunDirectories(runRoot())).map(look));
    const rows = looked.filter((row) => row !== null);
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
