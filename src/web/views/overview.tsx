/** The first screen: what runs, what is stored, what it costs, what is wrong. */
import { formatAgo, formatBytes, formatCount, formatRatio } from '../../format.js';
import { send } from '../api.js';
import { Do, DoAfterAsking } from '../parts/buttons.js';
import { forget, RunningJobs, titleOf } from '../parts/jobs.js';
import { apiPath, MachineRow, machinePath } from '../parts/machine-row.js';
import { SnapshotList } from '../parts/snapshot-list.js';
import { StoreFunnel } from '../parts/store-funnel.js';
import {
  failedMachines,
  type HostModel,
  liveMachines,
  sum,
  totalCpu,
  unverifiedPercent,
} from '../state/host-model.js';
import type { Job } from '../state/types.js';

const FIRST_STEPS = [
  'livesnap demo',
  'livesnap put bzImage --tag kernel',
  'livesnap start --kernel bzImage --name web --detach',
];

export function Overview({ model, nowMs }: { model: HostModel; nowMs: number }) {
  const live = liveMachines(model);
  const touched = sum(live.map(({ touchedBytes }) => touchedBytes ?? 0));
  const cpu = totalCpu(model);
  const { store, snapshots, host } = model;
  return (
    <main>
      <Problems model={model} nowMs={nowMs} />
      <section aria-label="Machines">
        <div class="section">
          <h2>Running</h2>
          <span class="num">
            {formatCount(live.length)}
            <span class="quiet">
              {' '}
              · {formatBytes(touched)} of {formatBytes(host.memoryBytes)}
              {cpu !== null && ` · CPU ${Math.round((100 * cpu) / host.cpus)}%`}
            </span>
          </span>
        </div>
        {live.length === 0 && <p class="quiet">No machine runs.</p>}
        <ul class="plain-list">
          {live.map((machine) => (
            <MachineRow key={machine.id ?? machine.name} {...{ machine, model, nowMs }} />
          ))}
        </ul>
      </section>
      <RunningJobs jobs={model.jobs.filter(({ state, kind }) => state === 'running' && kind !== 'save')} />
      {snapshots.length === 0 && store === null ? (
        <section class="empty" aria-label="First steps">
          <h2>Nothing is stored yet. To begin:</h2>
          <pre>{FIRST_STEPS.join('\n')}</pre>
        </section>
      ) : (
        <>
          <section aria-label="Store">
            <div class="section">
              <h2>Store</h2>
              <span class="num">
                {formatCount(snapshots.length, 'snapshot')}
                {store !== null && (
                  <span class="quiet">
                    {' '}
                    · {formatBytes(store.logicalBytes)} in {formatBytes(store.storedBytes + store.indexBytes)}{' '}
                    · {formatRatio(store.ratio)}
                  </span>
                )}
              </span>
              <span class="tools">
                <CheckStore />
                {store !== null && store.deadBytes > 0 && (
                  <>
                    <span class="num quiet">{formatBytes(store.deadBytes)} reclaimable</span>
                    <DoAfterAsking
                      label="Delete"
                      about="unreferenced data"
                      question="Delete data that no snapshot needs?"
                      work={() => send('POST', '/v1/store/gc', {})}
                    />
                  </>
                )}
              </span>
            </div>
            {store !== null && <StoreFunnel store={store} />}
          </section>
          <SnapshotList title="Snapshots" {...{ snapshots, model, nowMs }} />
        </>
      )}
    </main>
  );
}

function CheckStore() {
  const work = (): Promise<Job> => send('POST', '/v1/store/check', { readData: true });
  return <Do label="Check" about="the store" work={work} />;
}

/** What a person should look at. */
function Problems({ model, nowMs }: { model: HostModel; nowMs: number }) {
  const machines = failedMachines(model);
  const paused = model.machines.filter(({ state, reason }) => state === 'paused' && reason);
  const jobs = model.jobs.filter(
    ({ state, kind, result }) =>
      state === 'failed' || (kind === 'check' && (result as { ok?: boolean } | null)?.ok === false),
  );
  const damaged = Object.values(model.uniqueBytes ?? {}).filter((bytes) => bytes === null).length;
  const unverified = unverifiedPercent(model, nowMs);
  return (
    <section aria-label="Problems">
      {[...machines, ...paused].map((machine) => (
        <div class="problem" key={machine.id ?? machine.name}>
          <span>
            <a href={machinePath(machine)}>{machine.name}</a>{' '}
            {machine.state === 'unresponsive'
              ? 'does not answer'
              : machine.state === 'paused'
                ? 'is paused'
                : `failed${machine.failedAt ? ` ${formatAgo(machine.failedAt, nowMs)}` : ''}`}
            {machine.reason && `: ${machine.reason}`}
          </span>
          <a class="button" href={`${machinePath(machine)}/logs`} aria-label={`Log of ${machine.name}`}>
            Log
          </a>
          {machine.state !== 'paused' && (
            <Do label="Clean up" about={machine.name} work={() => send('DELETE', apiPath(machine))} />
          )}
        </div>
      ))}
      {damaged > 0 && (
        <div class="problem">
          <span>
            {formatCount(damaged, 'snapshot')} damaged. On the host, livesnap repair heals what has a copy.
          </span>
        </div>
      )}
      {unverified !== null && (
        <div class="problem">
          <span>{unverified}% of the stored data is not verified.</span>
          <CheckStore />
        </div>
      )}
      {jobs.map((job) => (
        <div class="problem" key={job.id}>
          <span>
            {titleOf(job)} {job.state === 'failed' ? `failed: ${job.problem?.detail ?? ''}` : 'found damage'}
          </span>
          <Do label="Dismiss" about={titleOf(job)} work={() => forget(job)} />
        </div>
      ))}
    </section>
  );
}
