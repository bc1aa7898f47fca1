/** Finds out who sends a request, and refuses those that may not. */
import type { IncomingMessage } from 'node:http';
import { HttpError } from '../machine/http-status.js';
import { wrongOrigin } from '../machine/origin.js';
import type { Access, Caller } from './access.js';
import type { Arrival } from './service.js';

/** The caller of a request. Errors: HttpError 401, 403. */
export function callerOf(request: IncomingMessage, arrival: Arrival, access: Access): Caller {
  if (arrival.isPrivate) return 'socket';
  requireOrigin(request, arrival);
  const caller = access.callerOf(request.headers.authorization);
  if (caller !== null) return caller;
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://server');
  const ticket = request.method === 'GET' ? searchParams.get('ticket') : null;
  const store = searchParams.get('store');
  const path = store === null ? pathname : `${pathname}?store=${store}`;
  if (ticket !== null && access.useTicket(ticket, path)) return 'ticket';
  throw new HttpError(
    401,
    request.headers.authorization === undefined ? 'the request has no token' : 'the token is not valid',
    'Send the header "Authorization: Bearer TOKEN". The token is in the file that livesnap serve names.',
  );
}

/** Errors: HttpError 403. */
export function requireOrigin(request: IncomingMessage, { origins }: Arrival): void {
  const wrong = wrongOrigin(request.headers, origins);
  if (wrong !== null) throw new HttpError(403, wrong, `Use ${[...origins][0]}.`);
}
