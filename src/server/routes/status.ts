/** What monitors ask: whether the server lives, its figures, and its description. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Type } from 'typebox';
import type { ServedStore } from '../served-stores.js';
import type { App, Service } from '../service.js';
import type { QueryResult } from '../store-queries.js';

type Snapshots = QueryResult<'list'>;

/** A monitor waits 10 s. */
const STORE_ANSWER_MS = 5000;
const METRIC_LABEL = /[\\"\n]/g;
const escaped = (text: string): string =>
  text.replace(METRIC_LABEL, (char) => (char === '\n' ? '\\n' : `\\${char}`));

interface Metric {
  readonly name: string;
  readonly help: string;
  readonly values: readonly { readonly labels?: Readonly<Record<string, string>>; readonly value: number }[];
}

/** The text format of Prometheus, version 0.0.4. */
function formatMetrics(metrics: readonly Metric[]): string {
  return metrics
    .flatMap(({ name, help, values }) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} gauge`,
      ...values.map(({ labels = {}, value }) => {
        const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`);
        return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${value}`;
      }),
    ])
    .join('\n')
    .concat('\n');
}

/** Null: the store does not answer in time, or with an error. */
async function listedBy({
  name,
  client,
}: ServedStore): Promise<{ name: string; snapshots: Snapshots | null }> {
  const listing = client.ask('list').catch(() => null);
  return { name, snapshots: await Promise.race([listing, sleep(STORE_ANSWER_MS, null, { ref: false })]) };
}

export function statusRoutes(app: App, { host, stores, startedAt, version }: Service): void {
  app.get(
    '/healthz',
    {
      config: { isPublic: true },
      schema: {
        summary: 'Whether the server answers',
        security: [],
        response: { 200: Type.Object({ status: Type.Literal('ok') }) },
      },
    },
    async () => ({ status: 'ok' as const }),
  );

  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());

  app.get('/metrics', { schema: { summary: 'Figures for Prometheus' } }, async (_request, reply) => {
    const [machines, listed] = await Promise.all([host.machines(), Promise.all(stores.all.map(listedBy))]);
    const isOnly = listed.length === 1;
    const perStore = (valueIn: (snapshots: Snapshots) => number) =>
      listed.flatMap(({ name, snapshots }) => {
        if (snapshots === null) return [];
        return [{ ...(isOnly ? {} : { labels: { store: name } }), value: valueIn(snapshots) }];
      });
    const states = new Map<string, number>();
    for (const { state } of machines) states.set(state, (states.get(state) ?? 0) + 1);
    const running = machines.filter(({ state }) => state === 'running' || state === 'paused');
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    reply.type('text/plain; version=0.0.4');
    return formatMetrics([
      {
        name: 'livesnap_info',
        help: 'The version of the server.',
        values: [{ labels: { version }, value: 1 }],
      },
      {
        name: 'livesnap_start_time_seconds',
        help: 'When the server was started.',
        values: [{ value: startedAt.getTime() / 1000 }],
      },
      {
        name: 'livesnap_machines',
        help: 'Machines by state.',
        values: [...states].map(([state, value]) => ({ labels: { state }, value })),
      },
      {
        name: 'livesnap_machine_memory_bytes',
        help: 'Memory of the guests that run or are paused.',
        values: [{ value: sum(running.map(({ memoryBytes }) => memoryBytes ?? 0)) }],
      },
      {
        name: 'livesnap_store_answers',
        help: 'Whether the snapshots of the store could be listed.',
        values: listed.map(({ name, snapshots }) => ({
          labels: { store: name },
          value: snapshots === null ? 0 : 1,
        })),
      },
      {
        name: 'livesnap_snapshots',
        help: 'Snapshots in the store.',
        values: perStore(({ length }) => length),
      },
      {
        name: 'livesnap_snapshot_stored_bytes',
        help: 'What the saves of these snapshots added to the store.',
        values: perStore((snapshots) => sum(snapshots.map(({ storedBytes }) => storedBytes))),
      },
    ]);
  });
}
