/** The store as a whole. */
import { Type } from 'typebox';
import { LivesnapError } from '../../errors.js';
import { CheckBody, CopyBody, ForgetBody, GcBody, Job, Stats } from '../schemas.js';
import type { App, Service } from '../service.js';
import { runJob } from './jobs.js';

/** The result of a verb, as the library has it. */
const result = Type.Unknown({ description: 'The result, as docs/library.md describes it.' });
const response = { 200: result, 202: Job };
const AS_JOB = 'Answered with a job, or with `Prefer: wait` with its result.';

export function storeRoutes(app: App, service: Service): void {
  const { store, remotes } = service;

  app.get(
    '/v1/store',
    { schema: { summary: 'What the store holds, and what it takes', response: { 200: Stats } } },
    () => store.ask('stats'),
  );

  app.post(
    '/v1/store/gc',
    { schema: { summary: 'Delete unreferenced data', description: AS_JOB, body: GcBody, response } },
    async (request, reply) => {
      const { dryRun = false, ...options } = request.body;
      if (dryRun) return store.ask('gc', { ...options, dryRun });
      return runJob(service, request, reply, { kind: 'gc', ...options });
    },
  );

  app.post(
    '/v1/store/check',
    { schema: { summary: 'Look for damage', description: AS_JOB, body: CheckBody, response } },
    (request, reply) => runJob(service, request, reply, { kind: 'check', ...request.body }),
  );

  app.post(
    '/v1/store/forget',
    {
      schema: {
        summary: 'Delete the snapshots that no rule keeps',
        description: AS_JOB,
        body: ForgetBody,
        response,
      },
    },
    async (request, reply) => {
      const { dryRun = false, keep, prune = false, ...choice } = request.body;
      if (dryRun) return store.ask('forget', keep, { ...choice, dryRun });
      return runJob(service, request, reply, { kind: 'forget', keep, prune, ...choice });
    },
  );

  app.post(
    '/v1/store/copy',
    {
      schema: {
        summary: 'Copy snapshots, or all that the other store lacks, to or from another store',
        description: AS_JOB,
        body: CopyBody,
        response,
      },
    },
    async (request, reply) => {
      const { snapshots = null, ...direction } = request.body;
      const name = 'to' in direction ? direction.to : direction.from;
      const address = remotes.get(name);
      if (address === undefined)
        throw new LivesnapError('USAGE', `this server knows no other store ${JSON.stringify(name)}`, {
          hint: 'Stores are named at its start: serve --remote NAME=ADDRESS.',
        });
      const remote = 'to' in direction ? { to: address } : { from: address };
      return runJob(service, request, reply, { kind: 'copy', snapshots, remote }, name);
    },
  );
}
