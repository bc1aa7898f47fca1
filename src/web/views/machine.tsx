/** One machine: its console, its numbers, its snapshots, and all that can be done with it. */
import { useEffect, useState } from 'preact/hooks';
import { formatAgo, formatBytes, formatDuration, formatTime } from '../../format.js';
import { request, send } from '../api.js';
import { Do, DoAfterAsking } from '../parts/buttons.js';
import { Console } from '../parts/console.js';
import { ForkForm } from '../parts/fork-form.js';
import { forget, titleOf } from '../parts/jobs.js';
import { apiPath, isLive, machinePath, percent, save, savedText } from '../parts/machine-row.js';
import { SnapshotList } from '../parts/snapshot-list.js';
import { Sparkline } from '../parts/sparkline.js';
import type { HostModel } from '../state/host-model.js';
import type { Machine } from '../state/types.js';

interface Props {
  readonly machine: Machine;
  readonly model: HostModel;
  readonly nowMs: number;
  /** What is open below the numbers. */
  readonly open: string | null;
}

export function MachineView({ machine, model, nowMs, open }: Props) {
  const {
    id,
    name,
    state,
    cpus,
    memoryBytes,
    touchedBytes,
    cpuSeconds,
    dirtyBytes,
    startedAt,
    endsAt,
    labels,
  } = machine;
  const path = apiPath(machine);
  const isKnown = model.snapshots.some(({ id }) => id === machine.snapshot);
  const samples = model.cpu[id ?? ''] ?? [];
  const live = isLive(machine);
  const history = model.snapshots.filter(({ vm, kind }) => vm === name && kind === 'machine');
  const jobs = model.jobs.filter(
    ({ subject, kind }) => subject === name && (kind === 'save' || kind === 'fork'),
  );
  const labelText = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return (
    <main>
      <div class="section">
        <h2 class="crumbs">
          <a href="#/">Machines</a> / {name}
        </h2>
        <span class={live ? 'quiet' : 'bad'}>
          {state}
          {machine.reason ? `: ${machine.reason}` : ''}
        </span>
        <span class="tools">
          {live && (
            <>
              <a
                class="button"
                href={open === 'console' ? machinePath(machine) : `${machinePath(machine)}/console`}
              >
                {open === 'console' ? 'Close console' : 'Console'}
              </a>
              <Do label="Save" about={name} work={() => save(machine)} />
              {state === 'running' ? (
                <Do label="Pause" about={name} work={() => send('POST', `${path}/pause`)} />
              ) : (
                <Do label="Resume" about={name} work={() => send('POST', `${path}/resume`)} />
              )}
            </>
          )}
          <a class="button" href={open === 'logs' ? machinePath(machine) : `${machinePath(machine)}/logs`}>
            {open === 'logs' ? 'Close log' : 'Log'}
          </a>
          {live ? (
            <DoAfterAsking
              label="Stop"
              about={name}
              question={`Stop ${name}? What was not saved is lost.`}
              work={() => send('POST', `${path}/stop`)}
            />
          ) : (
            <Do label="Clean up" about={name} work={() => send('DELETE', path)} />
          )}
        </span>
      </div>
      {open === 'console' && live && <Console machine={machine} />}
      {open === 'logs' && <Log machine={machine} />}
      <div class="columns2">
        <dl class="facts">
          <dt>Processor</dt>
          <dd class="num">
            <Sparkline samples={samples} cpus={cpus ?? 1} />
            {samples.length > 0 && `${Math.round(samples.at(-1)! * 100)}% · `}
            {cpus ?? '…'} vCPU{cpus === 1 ? '' : 's'}
            {cpuSeconds !== null && ` · ${formatDuration(cpuSeconds * 1000)} used`}
          </dd>
          <dt>Memory</dt>
          <dd class="num">
            {touchedBytes === null ? '…' : formatBytes(touchedBytes)} touched of{' '}
            {memoryBytes === null ? '…' : formatBytes(memoryBytes)}
          </dd>
          <dt>Snapshot</dt>
          <dd>
            {savedText(machine, model, nowMs)}
            {isKnown && dirtyBytes !== null && ` · ${formatBytes(dirtyBytes)} changed since`}
          </dd>
        </dl>
        <dl class="facts">
          <dt>Started</dt>
          <dd>{startedAt === null ? '…' : `${formatTime(startedAt)}, ${formatAgo(startedAt, nowMs)}`}</dd>
          <dt>Ends</dt>
          <dd>{endsAt === null ? 'when it is stopped' : formatTime(endsAt)}</dd>
          <dt>Labels</dt>
          <dd>{labelText.length === 0 ? <span class="quiet">none</span> : labelText.join(' ')}</dd>
          <dt>ID</dt>
          <dd class="num">{id ?? '…'}</dd>
        </dl>
      </div>
      {live && <ForkForm path={path} about={name} />}
      {jobs.length > 0 && (
        <section aria-label="Jobs">
          <div class="section">
            <h2>Saves and forks</h2>
          </div>
          <ul class="plain-list">
            {jobs.toReversed().map((job) => (
              <li class="row job" key={job.id}>
                <span>{job.kind}</span>
                <span class={job.state === 'failed' ? 'bad' : ''}>
                  {job.problem?.detail ?? resultText(job.result) ?? job.state}
                </span>
                <span class="progress num quiet">
                  {job.state === 'running' ? percent(job) : formatAgo(job.endedAt ?? job.startedAt, nowMs)}
                </span>
                <span class="actions">
                  <Do
                    label={job.state === 'running' ? 'Cancel' : 'Dismiss'}
                    about={titleOf(job)}
                    work={() => forget(job)}
                  />
                </span>
              </li>
            ))}
          </ul>
        </section>
      )}
      <SnapshotList title={`Snapshots of ${name}`} snapshots={history} model={model} nowMs={nowMs} />
    </main>
  );
}

/** What a save was like. Null: it has no such result. */
function resultText(result: unknown): string | null {
  const { storedBytes, pauseMs, saveMs } = (result ?? {}) as Record<string, number | undefined>;
  if (storedBytes === undefined || pauseMs === undefined || saveMs === undefined) return null;
  return `stored ${formatBytes(storedBytes)} in ${formatDuration(saveMs)}, paused ${formatDuration(pauseMs)}`;
}

function Log({ machine }: { machine: Machine }) {
  const [text, setText] = useState<string | null>(null);
  const path = apiPath(machine);
  useEffect(() => {
    // One of them may be lost while the other tells why.
    const read = async (query: string): Promise<string> => {
      try {
        return await (await request(`${path}/logs${query}`)).text();
      } catch (error) {
        return (error as Error).message;
      }
    };
    void Promise.all([read('?process=true'), read('')]).then(([process, console]) =>
      setText(`${process}\n── console ──\n${console}`),
    );
  }, [path]);
  return (
    <section aria-label={`Log of ${machine.name}`}>
      <pre class="log">{text ?? '…'}</pre>
    </section>
  );
}
