/** The stores as a whole. */
import { Type } from 'typebox';
import { LivesnapError } from '../../errors.js';
import {
  CheckBody,
  CopyBody,
  DownloadQuery,
  ForgetBody,
  GcBody,
  Job,
  list,
  NamedStore,
  Stats,
  StoreQuery,
} from '../schemas.js';
import type { App, Service } from '../service.js';
import { runJob } from './jobs.js';

/** The result of a verb, as the library has it. */
const result = Type.Unknown({ description: 'The result, as docs/library.md describes it.' });
const response = { 200: result, 202: Job };
const AS_JOB = 'Answered with a job, or with `Prefer: wait` with its result.';

export function storeRoutes(app: App, service: Service): void {
  const { stores, remotes } = service;

  app.get(
    '/v1/stores',
    {
      schema: {
        summary: 'List the stores of the server, the default first',
        response: { 200: list(NamedStore) },
      },
    },
    async () => stores.all.map((store) => ({ name: store.name, default: store === stores.main })),
  );

  app.get(
    '/v1/store',
    {
      schema: {
        summary: 'What the store holds, and what it takes',
        querystring: DownloadQuery,
        response: { 200: Stats },
      },
    },
    ({ query }) => stores.named(query.store).client.ask('stats'),
  );

  app.post(
    '/v1/store/gc',
    {
      schema: {
        summary: 'Delete unreferenced data',
        description: AS_JOB,
        querystring: StoreQuery,
        body: GcBody,
        response,
      },
    },
    async (request, reply) => {
      const { dryRun = false, ...options } = request.body;
      const store = stores.named(request.query.store);
      if (dryRun) return store.client.ask('gc', { ...options, dryRun });
      return runJob(service, request, reply, store, { kind: 'gc', ...options });
    },
  );

  app.post(
    '/v1/store/check',
    {
      schema: {
        summary: 'Look for damage',
        description: AS_JOB,
        querystring: StoreQuery,
        body: CheckBody,
        response,
      },
    },
    async (request, reply) =>
      runJob(service, request, reply, stores.named(request.query.store), { kind: 'check', ...request.body }),
  );

  app.post(
    '/v1/store/forget',
    {
      schema: {
        summary: 'Delete the snapshots that no rule keeps',
        description: AS_JOB,
        querystring: StoreQuery,
        body: ForgetBody,
        response,
      },
    },
    async (request, reply) => {
      const { dryRun = false, keep, prune = false, ...choice } = request.body;
      const store = stores.named(request.query.store);
      if (dryRun) return store.client.ask('forget', keep, { ...choice, dryRun });
      return runJob(service, request, reply, store, { kind: 'forget', keep, prune, ...choice });
    },
  );

  app.post(
    '/v1/store/copy',
    {
      schema: {
        summary: 'Copy snapshots, or all that the other store lacks, to or from another store',
        description: AS_JOB,
        querystring: StoreQuery,
        body: CopyBody,
        response,
      },
    },
    async (request, reply) => {
      const { snapshots = null, ...direction } = request.body;
      const name = 'to' in direction ? direction.to : direction.from;
      const store = stores.named(request.query.store);
      const address =
        remotes.get(name) ??
        stores.all.find((other) => other !== store && other.name === name)?.host.storeDir;
      if (address === undefined)
        throw new LivesnapError('USAGE', `this server knows no other store ${JSON.stringify(name)}`, {
          hint: 'Stores are named at its start: serve --remote NAME=ADDRESS, or --named-store NAME=DIR.',
        });
      const remote = 'to' in direction ? { to: address } : { from: address };
      return runJob(service, request, reply, store, { kind: 'copy', snapshots, remote }, name);
    },
  );
}
