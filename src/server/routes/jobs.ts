/** Jobs: what takes long and goes on without the client. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { LivesnapError } from '../../errors.js';
import type { JobRequest } from '../../jobs/job-types.js';
import { prefers } from '../../machine/prefer.js';
import { Job, list } from '../schemas.js';
import type { ServedStore } from '../served-stores.js';
import type { App, Service } from '../service.js';

/** Answers 202 with a job. */
export function accepted(reply: Pick<FastifyReply, 'code' | 'header'>, job: Job): Job {
  reply.code(202).header('location', `/v1/jobs/${job.id}`);
  return job;
}

/**
 * Starts a job with a store, and answers with it, or with its result, a `T`, if the client waits. `subject`: what it works
 * on, if that is not the store. Errors: those of the job.
 */
export async function runJob<T>(
  service: Service,
  request: FastifyRequest,
  reply: Pick<FastifyReply, 'code' | 'header'>,
  store: ServedStore,
  work: JobRequest,
  subject = subjectOf(service, store),
): Promise<Job | T> {
  const { id } = await service.jobs.processes.start(work, subject, store.host.storeDir);
  return answerWithJob<T>(service, request, reply, id);
}

/** The subject of a job of a store as a whole. Empty: the server has no other. */
export const subjectOf = ({ stores }: Service, store: ServedStore): string =>
  stores.all.length === 1 ? '' : store.name;

/** As {@link runJob}, with a job that has been started. */
export async function answerWithJob<T>(
  { jobs, stores, closing }: Service,
  request: FastifyRequest,
  reply: Pick<FastifyReply, 'code' | 'header'>,
  id: string,
): Promise<Job | T> {
  stores.lookSoon();
  if (!prefers(request.headers, 'wait')) return accepted(reply, await jobs.find(id));
  const { result, error } = await jobs.processes.wait(id, closing);
  if (error !== null) throw LivesnapError.fromJSON(error);
  return result as T;
}

const params = Type.Object({ job: Type.String({ pattern: '^[0-9a-f]{32}(-[0-9]{1,15})?$' }) });

export function jobRoutes(app: App, { jobs, stores }: Service): void {
  app.get('/v1/jobs', { schema: { summary: 'List jobs, oldest first', response: { 200: list(Job) } } }, () =>
    jobs.list(),
  );

  app.get(
    '/v1/jobs/:job',
    { schema: { summary: 'Describe a job', params, response: { 200: Job } } },
    ({ params: { job } }) => jobs.find(job),
  );

  app.delete(
    '/v1/jobs/:job',
    {
      schema: {
        summary: 'Cancel a job that runs, or forget one that has ended',
        params,
        response: { 204: Type.Null() },
      },
    },
    async ({ params: { job } }, reply) => {
      await jobs.remove(job);
      stores.lookSoon();
      return reply.code(204).send(null);
    },
  );
}
