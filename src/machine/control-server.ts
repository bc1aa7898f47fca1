/**
 * The server of the control API: HTTP/1.1 over the Unix socket in the machine's run directory, and over a loopback
 * port on request.
 *
 * Thread: the main thread of the process of a machine.
 *
 * Invariants:
 * - It listens before the machine runs.
 * - Every failure is answered with `{error: {code, message, hint}}`.
 * - A connection carries one request.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asLivesnapError, LivesnapError } from '../errors.js';
import { ID_HEADER, type StopResult } from './control-api.js';
import { parseTarget, requireLoopback, requireToken } from './control-requests.js';
import { type ControlledMachine, type Handler, ROUTES, sendJson } from './control-routes.js';
import { HttpError, httpStatusOf } from './http-status.js';
import { listenError } from './listen-error.js';
import { log } from './log.js';
import { listeningAddress } from './socket-path.js';

/** Errors: HttpError 404, 405 (`Allow` is set then). */
function findRoute(method: string, path: string, response: ServerResponse): Handler {
  const methods = Object.hasOwn(ROUTES, path) ? ROUTES[path]! : null;
  if (methods === null)
    throw new HttpError(404, `No route for ${method} ${path}`, 'See docs/api.md for the routes.');
  const handler = Object.hasOwn(methods, method) ? methods[method]! : null;
  if (handler !== null) return handler;
  const allowed = Object.keys(methods).join(', ');
  response.setHeader('allow', allowed);
  throw new HttpError(405, `No route for ${method} ${path}`, `Allowed methods: ${allowed}.`);
}

/** Errors: MACHINE_GONE if the request is for a machine that had this name before. */
function requireMeant({ headers }: IncomingMessage, machine: ControlledMachine): void {
  const meant = headers[ID_HEADER];
  if (meant === undefined) return;
  const { id, name } = machine;
  if (meant !== id)
    throw new LivesnapError('MACHINE_GONE', `the machine ${name} with the ID ${meant} has ended`, {
      hint: `The name ${name} is now that of the machine ${id}.`,
    });
}

/** A machine that does not run yet: it can only be stopped. */
export interface StartingMachine {
  readonly name: string;
  onStop(): void;
}

export class ControlServer {
  readonly #servers: Server[] = [];
  #machine: ControlledMachine | null = null;
  #releaseAddress = () => {};
  /** Null: there is no port. */
  #token: string | null = null;
  readonly #starting: StartingMachine | null;

  /** Until {@link serve}, requests are answered with 503, but `starting` can be stopped. */
  constructor(starting: StartingMachine | null = null) {
    this.#starting = starting;
  }

  /** Answers requests for `machine` from now on. */
  serve(machine: ControlledMachine): void {
    this.#machine = machine;
  }

  async listenUnix(path: string): Promise<void> {
    const { address, close } = listeningAddress(path);
    this.#releaseAddress = close;
    await this.#listen(null, (server) => server.listen(address));
  }

  /**
   * Requests there need the token, because every user of the host can send them. Returns the port, which the system
   * chooses for port 0. Errors: NAME_IN_USE when the port is taken, USAGE when it is not allowed.
   */
  async listenLoopback(port: number, token: string): Promise<number> {
    this.#token = token;
    try {
      return await this.#listen(port, (server) => server.listen(port, '127.0.0.1'));
    } catch (error) {
      throw listenError(`port ${port}`, error, 'Choose another --port.');
    }
  }

  async #listen(port: number | null, start: (server: Server) => void): Promise<number> {
    // Input may come as slowly as a person types, so a request may take any time to arrive in full.
    const server = createServer({ requestTimeout: 0 }, (request, response) => {
      const actualPort = port === null ? null : (server.address() as AddressInfo).port;
      void this.#answer(request, response, actualPort);
    });
    this.#servers.push(server);
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', () => {
        server.off('error', reject);
        resolve();
      });
      start(server);
    });
    return port === null ? 0 : (server.address() as AddressInfo).port;
  }

  async #answer(request: IncomingMessage, response: ServerResponse, port: number | null): Promise<void> {
    // The process ends soon after the machine, and idle connections would delay that.
    response.shouldKeepAlive = false;
    response.on('error', () => {});
    try {
      if (port !== null) {
        requireLoopback(request, port);
        requireToken(request, this.#token!);
      }
      const url = parseTarget(request.url ?? '/');
      const handler = findRoute(request.method ?? '', url.pathname, response);
      const machine = this.#machine;
      if (machine === null && this.#starting !== null && handler === ROUTES['/stop']!.POST) {
        const { name, onStop } = this.#starting;
        // The process ends once the client has its answer.
        response.once('close', onStop);
        const result: StopResult = { name, state: 'stopped', how: 'ended', reason: 'starting', lostSaves: 0 };
        sendJson(response, 200, result);
        return;
      }
      if (machine === null) {
        const error = new LivesnapError('NOT_POSSIBLE_NOW', 'the machine is starting');
        sendJson(response, 503, { error: error.toJSON() });
        return;
      }
      requireMeant(request, machine);
      const isOverTcp = port !== null;
      await handler({ machine, request, response, query: url.searchParams, isOverTcp });
    } catch (thrown) {
      // The client has disconnected: it needs no answer, and the log no entry.
      if ((thrown as NodeJS.ErrnoException).code === 'ECONNRESET') return;
      const error = asLivesnapError(thrown);
      if (error !== thrown) log.writeError(thrown);
      if (response.headersSent) response.destroy();
      else sendJson(response, httpStatusOf(error), { error: error.toJSON() });
      request.resume();
    }
  }

  /**
   * Accepts no more requests, gives those in progress at most `graceMs` to be answered, and closes every connection.
   */
  async close(graceMs: number): Promise<void> {
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    // A client may keep its input stream open for ever, so there is a limit.
    const timer = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
    }, graceMs);
    await Promise.all(closed);
    clearTimeout(timer);
    this.#releaseAddress();
    this.#releaseAddress = () => {};
  }
}
