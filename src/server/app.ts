/**
 * The API of a host: routes, and what holds for all of them.
 *
 * What flows: a request comes from a listener (listen.ts), which says how it came; its caller is proved here, its schema
 * is checked, and a route asks the host library (src/host) or the store's thread (store-client.ts). All of it happens on
 * the main thread, which never waits for a disk or a lock.
 *
 * Invariants:
 * - Every route needs a caller, unless it says `isPublic`.
 * - Nothing in a request is converted, and unknown fields are refused.
 * - Every failure is a problem (problem.ts). An unexpected one is logged with its stack.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import swagger from '@fastify/swagger';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import fastify, { type FastifyRequest } from 'fastify';
import { LivesnapError } from '../errors.js';
import { HttpError } from '../machine/http-status.js';
import { callerOf, requireOrigin } from './caller.js';
import { PROBLEM_TYPE, Problem, problemOf } from './problem.js';
import { accessRoutes } from './routes/access.js';
import { archiveRoutes } from './routes/archives.js';
import { eventRoutes } from './routes/events.js';
import { jobRoutes } from './routes/jobs.js';
import { machineRoutes } from './routes/machines.js';
import { pageRoutes } from './routes/page.js';
import { snapshotRoutes } from './routes/snapshots.js';
import { statusRoutes } from './routes/status.js';
import { storeRoutes } from './routes/store.js';
import { tagRoutes } from './routes/tags.js';
import { SHARED } from './schemas.js';
import type { ServerLog } from './server-log.js';
import type { App, Arrival, Service } from './service.js';
import { endUnread } from './stalled.js';

const MAX_BODY_BYTES = 64 * 1024;
const BODY_TIMEOUT_MS = 30_000;
const ARCHIVE = /^application\/x-tar\s*(;|$)/i;
const MAX_PATH_PARAMETER_LENGTH = 200;

/** `arrivalOf`: how the connection of a request came. `makeServer`: makes the server that fastify answers for. */
export async function makeApp(
  service: Service,
  arrivalOf: (request: IncomingMessage) => Arrival,
  makeServer: (answer: (request: IncomingMessage, response: ServerResponse) => void) => Server,
): Promise<App> {
  const { access, log } = service;
  const app = fastify({
    serverFactory: makeServer,
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    routerOptions: { maxParamLength: MAX_PATH_PARAMETER_LENGTH },
    ajv: {
      customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false },
    },
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    forceCloseConnections: true,
    exposeHeadRoutes: false,
  }).withTypeProvider<TypeBoxTypeProvider>() as unknown as App;

  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.decorateRequest('caller', null);
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff');
    const arrival = arrivalOf(request.raw);
    if (!request.routeOptions.config.isPublic) request.caller = callerOf(request.raw, arrival, access);
    else if (!arrival.isPrivate) requireOrigin(request.raw, arrival);
  });
  // An archive may take long, and its route ends one that stalls. Every other body is short.
  app.addHook('preParsing', async (request, _reply, payload) => {
    if (ARCHIVE.test(request.headers['content-type'] ?? '')) return payload;
    const timer = setTimeout(() => request.raw.destroy(), BODY_TIMEOUT_MS);
    payload.once('close', () => clearTimeout(timer));
    payload.once('end', () => clearTimeout(timer));
    return payload;
  });
  app.addHook('onResponse', async (request) => endUnread(request.raw));
  // A request without a body is one with an empty object, which has all defaults.
  app.addHook('preValidation', async (request) => {
    if (request.routeOptions.schema?.body !== undefined) request.body ??= {};
  });
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, text, done) => {
    if (text === '') done(null, undefined);
    else parseJson(request, text as string, done);
  });
  app.setErrorHandler((thrown, request, reply) => {
    const problem = problemOf(thrown);
    note(log, request, thrown, problem.status);
    if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
    return reply.code(problem.status).type(PROBLEM_TYPE).send(JSON.stringify(problem));
  });
  app.setNotFoundHandler((request) => {
    const path = request.url.split('?')[0]!.slice(0, 100);
    throw new HttpError(
      404,
      `No route for ${request.method} ${path}`,
      'GET /openapi.json describes all routes.',
    );
  });

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'livesnap',
        version: service.version,
        description: 'The machines and the store of a host. Errors are problem details (RFC 9457).',
      },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: [{ token: [] }],
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json.$id ?? `def-${i}`) },
  });
  for (const schema of [Problem, ...SHARED]) app.addSchema(schema);
  await app.register(async (scope) => {
    const routes = scope as unknown as App;
    statusRoutes(routes, service);
    eventRoutes(routes, service);
    accessRoutes(routes, service);
    machineRoutes(routes, service);
    snapshotRoutes(routes, service);
    tagRoutes(routes, service);
    archiveRoutes(routes, service);
    storeRoutes(routes, service);
    pageRoutes(routes, service);
    jobRoutes(routes, service);
  });
  await app.ready();
  return app;
}

/** Refusals are logged once, with how often they came; faults of livesnap each time, with the stack. */
function note(log: ServerLog, request: FastifyRequest, thrown: unknown, status: number): void {
  if (status === 401 || status === 403)
    log.refused(`${status} ${request.method}: ${(thrown as Error).message}`);
  else if (!(thrown instanceof LivesnapError) && status >= 500) log.fault(thrown);
}
