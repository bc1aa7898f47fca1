/** Sign-in: codes, sessions and tickets (access.ts). */
import { Type } from 'typebox';
import { HttpError } from '../../machine/http-status.js';
import { Grant, SessionBody, TicketBody } from '../schemas.js';
import type { App, Service } from '../service.js';

export function accessRoutes(app: App, { access }: Service): void {
  app.post(
    '/v1/codes',
    { schema: { summary: 'Make a code for one sign-in within 60 s', response: { 201: Type.Ref('Grant') } } },
    async (request, reply) => {
      if (request.caller === 'session' || request.caller === 'ticket')
        throw new HttpError(403, 'a session cannot make a code', 'Use the token or the Unix socket.');
      return reply.code(201).send(access.newCode());
    },
  );

  app.post(
    '/v1/sessions',
    {
      config: { isPublic: true },
      schema: {
        summary: 'Trade a code for a session of 12 hours',
        security: [],
        body: SessionBody,
        response: { 201: Grant },
      },
    },
    async (request, reply) => {
      const session = access.newSession(request.body.code);
      if (session === null)
        throw new HttpError(401, 'the code is not valid, was used, or has ended', 'Run livesnap open again.');
      return reply.code(201).send(session);
    },
  );

  app.post(
    '/v1/tickets',
    {
      schema: {
        summary: 'Make a ticket for one download within 60 s: GET PATH?ticket=SECRET',
        body: TicketBody,
        response: { 201: Grant },
      },
    },
    async (request, reply) => reply.code(201).send(access.newTicket(request.body.path)),
  );
}
