/** Sign-in: codes, sessions and tickets (access.ts). */
import { HttpError } from '../../machine/http-status.js';
import { CodeBody, CodeGrant, Grant, SessionBody, TicketBody } from '../schemas.js';
import type { App, Service } from '../service.js';

export function accessRoutes(app: App, { access, signInFiles, origin }: Service): void {
  app.post(
    '/v1/codes',
    {
      schema: {
        summary: 'Make a code for one sign-in within 60 s',
        description: 'With `page`, also a file on the host that signs a browser in.',
        body: CodeBody,
        response: { 201: CodeGrant },
      },
    },
    async (request, reply) => {
      if (request.caller === 'session' || request.caller === 'ticket')
        throw new HttpError(403, 'a session cannot make a code', 'Use the token or the Unix socket.');
      if (!request.body.page) return reply.code(201).send(access.newCode());
      const url = origin();
      if (url === null)
        throw new HttpError(
          409,
          'the server listens on its Unix socket alone, which no browser can use',
          'Start it with --listen, for example livesnap serve --listen 127.0.0.1:7070.',
        );
      const code = access.newCode();
      return reply.code(201).send({ ...code, url, file: signInFiles.write(url, code.secret) });
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
      signInFiles.remove(request.body.code);
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
