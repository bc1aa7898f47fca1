/** Jobs: what takes long and goes on without the client. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { Type } from 'typebox';
import { LivesnapError } from '../../errors.js';
import type { JobRequest } from '../../jobs/job-types.js';
import { prefers } from '../../machine/prefer.js';
import { Job, list } from '../schemas.js';
import type { App, Service } from '../service.js';

/** Answers 202 with a job. */
export function accepted(reply: Pick<FastifyReply, 'code' | 'header'>, job: Job): Job {
  reply.code(202).header('location', `/v1/jobs/${job.id}`);
  return job;
}

/** Starts a job, and answers with it, or with its result, a `T`, if the client waits. Errors: those of the job. */
export async function runJob<T>(
  service: Service,
  request: FastifyRequest,
  reply: Pick<FastifyReply, 'code' | 'header'>,
  work: JobRequest,
  subject = '',
): Promise<Job | T> {
  const { id } = await service.jobs.processes.start(work, subject);
  return answerWithJob<T>(service, request, reply, id);
}

/** As {@link runJob}, with a job that has been started. */
export async function answerWithJob<T>(
  { jobs, feed, closing }: Service,
  request: FastifyRequest,
  reply: Pick<FastifyReply, 'code' | 'header'>,
  id: string,
): Promise<Job | T> {
  feed.lookSoon();
  if (!prefers(request.headers, 'wait')) return accepted(reply, await jobs.find(id));
  const { result, error } = await jobs.processes.wait(id, closing);
  if (error !== null) throw LivesnapError.fromJSON(error);
  return result as T;
}

const params = Type.Object({ job: Type.String({ pattern: '^[0-9a-f]{32}(-[0-9]{1,15})?$' }) });

export function jobRoutes(app: App, { jobs, feed }: Service): void {
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
      feed.lookSoon();
      return reply.code(204).send(null);
    },
  );
}
