/** Shows the details of a machine, also of one that failed or whose process died. */
import { formatBytes, formatDuration } from '../format.js';
import { findRunDirectory } from '../host/find-machine.js';
import type { Host } from '../host/host.js';
import { type MachineInfo, machineInfo } from '../host/machine-info.js';
import { noSuchMachine } from '../machine/client.js';
import type { MachineDescription } from '../machine/control-api.js';
import { styleOfState } from './machine-state.js';
import { noteOf, type Output } from './output.js';
import { joined, printable, styled, type Text, text } from './styled-text.js';
import { formatPairs, formatTable } from './table.js';
import { timeWithAge } from './time-option.js';

/** Errors: NO_SUCH_MACHINE, AMBIGUOUS. */
export async function showMachine(host: Host, ref: string, output: Output): Promise<void> {
  const directory = await findRunDirectory(ref);
  const info = directory && (await machineInfo(directory));
  if (info === null) throw noSuchMachine(ref);
  const isLive = info.state === 'running' || info.state === 'paused';
  const about = isLive ? (await host.machine(info.name)).about : null;
  output.result(
    { ...info, ...about },
    () => (about === null ? formatPairs(pairsOf(info)) : describe(info, about)),
    () => info.id ?? info.name,
  );
}

const labelsOf = ({ labels }: MachineInfo): string | null =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ') || null;

function stateOf({ state, reason }: MachineInfo): Text {
  const word = styled(styleOfState(state), state);
  return reason === undefined ? word : text`${word}: ${printable(reason)}`;
}

function pairsOf(info: MachineInfo): (readonly [string, Text | null])[] {
  return [
    ['ID', info.id],
    ['Name', info.name],
    ['State', stateOf(info)],
    ['Labels', labelsOf(info)],
    ['Process', info.pid?.toString() ?? null],
    ['vCPUs', info.cpus?.toString() ?? null],
    ['Memory', info.memoryBytes === null ? null : formatBytes(info.memoryBytes)],
    ['Started', timeWithAge(info.startedAt)],
    ['Ends', timeWithAge(info.endsAt)],
    ['Snapshot', info.snapshot],
  ];
}

function describe(info: MachineInfo, about: MachineDescription): Text {
  const more: (readonly [string, string | null])[] = [
    ['Touched', `${formatBytes(about.touchedBytes)} of the memory`],
    ['CPU time', formatDuration(about.cpuSeconds * 1000)],
    ['Changed', about.dirtyBytes === null ? null : `${formatBytes(about.dirtyBytes)} since the last save`],
    ['Store', about.store],
  ];
  const nets =
    about.nets.length === 0
      ? []
      : [
          '',
          formatTable(about.nets, [
            { title: 'NETWORK', cell: ({ name }) => name },
            { title: 'MAC', cell: ({ mac }) => mac },
            { title: 'BACKEND', cell: ({ backend }) => backend },
            { title: 'RECEIVED', cell: ({ receivedBytes }) => formatBytes(receivedBytes), right: true },
            { title: 'SENT', cell: ({ sentBytes }) => formatBytes(sentBytes), right: true },
          ]),
        ];
  const notices = about.notices.map(noteOf);
  return joined([
    formatPairs([...pairsOf(info), ...more]),
    ...nets,
    ...(notices.length > 0 ? ['', ...notices] : []),
  ]);
}
