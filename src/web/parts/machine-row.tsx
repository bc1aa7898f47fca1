/** A machine as a row: what it is doing, what it takes, and what can be done with it. */
import { formatAgo, formatBytes } from '../../format.js';
import { send } from '../api.js';
import type { HostModel } from '../state/host-model.js';
import type { Job, Machine } from '../state/types.js';
import { Do } from './buttons.js';
import { fork } from './fork-form.js';
import { Sparkline } from './sparkline.js';

const GLYPHS: Partial<Record<Machine['state'], string>> = { running: '●', paused: '‖', starting: '○' };

export const machinePath = ({ id, name }: Machine): string => `#/machines/${id ?? name}`;
export const apiPath = ({ id, name }: Machine): string => `/v1/machines/${encodeURIComponent(id ?? name)}`;

export const save = async (machine: Machine): Promise<void> => {
  await send<Job>('POST', `${apiPath(machine)}/save`, {});
};

export const isLive = ({ state }: Machine): boolean => state === 'running' || state === 'paused';

/** When it was last saved, or what it was restored from. */
export function savedText(
  { snapshot, startedAt }: Machine,
  { snapshots, host }: HostModel,
  nowMs: number,
): string {
  const found = snapshot === null ? undefined : snapshots.find(({ id }) => id === snapshot);
  if (found === undefined)
    return snapshot === null || host.stores.length === 1 ? 'never saved' : `not saved in ${host.store}`;
  if (startedAt !== null && found.createdAt < startedAt)
    return `from ${found.tags[0] ?? found.id.slice(0, 12)}`;
  return `saved ${formatAgo(found.createdAt, nowMs)}`;
}

export function MachineRow({ machine, model, nowMs }: { machine: Machine; model: HostModel; nowMs: number }) {
  const { name, state, memoryBytes, touchedBytes, cpus } = machine;
  const samples = model.cpu[machine.id ?? ''] ?? [];
  const cpu = samples.at(-1);
  const saving = model.jobs.find(
    ({ kind, subject, state: jobState }) => kind === 'save' && subject === name && jobState === 'running',
  );
  return (
    <li class="row machine">
      <span class="name">
        <span class={`glyph ${GLYPHS[state] === undefined ? 'bad' : ''}`} aria-hidden="true">
          {GLYPHS[state] ?? '✕'}
        </span>
        <a href={machinePath(machine)} data-row>
          {name}
        </a>
        {state !== 'running' && <span class="quiet"> {state}</span>}
        <span class="sr">, {state}</span>
      </span>
      <Sparkline samples={samples} cpus={cpus ?? 1} />
      <span class="num cpu">{cpu === undefined ? '' : `${Math.round(cpu * 100)}%`}</span>
      <span class="num memory">
        {touchedBytes === null ? '…' : formatBytes(touchedBytes)}
        <span class="quiet"> / {memoryBytes === null ? '…' : formatBytes(memoryBytes)}</span>
      </span>
      <span class="saved quiet">
        {saving === undefined ? savedText(machine, model, nowMs) : `saving ${percent(saving)}`}
      </span>
      <span class="actions">
        {isLive(machine) && (
          <>
            <a class="button" href={`${machinePath(machine)}/console`} aria-label={`Console of ${name}`}>
              Console
            </a>
            <Do label="Save" about={name} work={() => save(machine)} />
            <Do label="Fork" about={name} work={() => fork(apiPath(machine), name, 1)} />
          </>
        )}
      </span>
    </li>
  );
}

export function percent({ progress }: Job): string {
  if (progress === null || progress.totalBytes === null || progress.totalBytes === 0) return '…';
  return `${Math.round((100 * progress.doneBytes) / progress.totalBytes)}%`;
}
