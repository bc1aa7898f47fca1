/**
 * The control API of one machine: HTTP/1.1 with JSON over the Unix socket in its run directory, and over a
 * loopback port when one was asked for (docs/api.md).
 *
 * Invariants: every failure is answered with `{error: {code, message, hint}}`; bodies are bounded and their keys
 * and types checked before use; over TCP the Host must be the loopback's and an Origin, if any, the same, so that
 * no web page elsewhere can drive a machine (DNS rebinding, cross-site requests), and the request cannot choose
 * which directory a save writes to.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isAbsolute } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, ExitStatus, LivesnapError } from '../errors.js';
import type { Progress } from '../page-stream.js';
import type { MachineEnd, MachineSaveResult, MachineState, SaveThen } from '../vmm/machine-types.js';
import { type ConsoleHub, HISTORY_BYTES, RING_BYTES } from './console-hub.js';
import { log } from './log.js';
import { listeningAddress } from './socket-path.js';

/** What `GET /machine` answers. */
export interface MachineDescription {
  readonly name: string;
  readonly pid: number;
  readonly state: MachineState;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly snapshot: string | null;
  /** The store that a save goes to unless it names another. */
  readonly store: string;
  readonly notices: readonly string[];
}

export interface SaveRequest {
  /** Absolute path of the store; null: the one the machine was started with. */
  readonly store: string | null;
  readonly tag: string | null;
  readonly then: SaveThen | null;
}

/** What the routes act on. */
export interface ControlledMachine {
  readonly console: ConsoleHub;
  readonly end: MachineEnd | null;
  describe(): MachineDescription;
  pause(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
  save(request: SaveRequest, progress: Progress): Promise<MachineSaveResult>;
  writeConsole(bytes: Uint8Array): void;
}

/** The trailer of `GET /console` that says how the machine ended: JSON, percent-encoded. */
export const END_TRAILER = 'livesnap-end';

/** The header of `GET /console` that says whether the guest is in the middle of a line: `new` or `begun`. */
export const LINE_HEADER = 'livesnap-line';

export type EndReport = { kind: MachineEnd['kind']; error: ReturnType<LivesnapError['toJSON']> | null };

const BODY_LIMIT_BYTES = 64 * 1024;
const PROGRESS_INTERVAL_MS = 100;
const INPUT_PIECE_BYTES = 4096;
const INPUT_RETRY_MS = 20;

const HTTP_STATUS: Partial<Record<ErrorCode, number>> = {
  NO_PERMISSION: 403,
  NAME_IN_USE: 409,
  AMBIGUOUS: 409,
  NOT_POSSIBLE_NOW: 409,
  STORE_BUSY: 409,
  MACHINE_GONE: 410,
  NO_SPACE: 507,
};

/** A request that is refused with an HTTP status of its own. */
class HttpError extends LivesnapError {
  constructor(
    readonly status: number,
    message: string,
    hint?: string,
  ) {
    super('USAGE', message, hint === undefined ? {} : { hint });
  }
}

function statusOf(error: LivesnapError): number {
  if (error instanceof HttpError) return error.status;
  const byExit = { [ExitStatus.usage]: 400, [ExitStatus.notFound]: 404 } as Record<number, number>;
  return HTTP_STATUS[error.code] ?? byExit[error.exitStatus] ?? 500;
}

/** Any thrown thing as an error of ours; one that is unexpected is said to be so and keeps its stack as cause. */
export function asLivesnapError(error: unknown): LivesnapError {
  if (error instanceof LivesnapError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new LivesnapError('SYSTEM', `internal error: ${message}`, { cause: error });
}

export function endReport(end: MachineEnd): EndReport {
  return { kind: end.kind, error: end.kind === 'failed' ? end.error.toJSON() : null };
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  });
  response.end(text);
}

/** The request's body; leaving the loop early leaves the connection open for the answer. */
const chunks = (request: IncomingMessage): AsyncIterable<Buffer> =>
  request.iterator({ destroyOnReturn: false });

async function readBody(request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of chunks(request)) {
    length += part.length;
    if (length > BODY_LIMIT_BYTES)
      throw new HttpError(413, `the request's body is longer than ${BODY_LIMIT_BYTES} bytes`);
    parts.push(part);
  }
  if (length === 0) return {};
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts)));
  } catch {
    throw new HttpError(400, "the request's body is not JSON in UTF-8");
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new HttpError(400, "the request's body is not a JSON object");
  return body as Record<string, unknown>;
}

function onlyKeys(body: Record<string, unknown>, keys: readonly string[]): void {
  for (const key of Object.keys(body))
    if (!keys.includes(key))
      throw new HttpError(
        400,
        `the request's body has an unknown key ${JSON.stringify(key)}`,
        keys.length === 0 ? 'This request takes no body.' : `Keys it may have: ${keys.join(', ')}.`,
      );
}

/** What the system cannot be given as text: NUL ends a string there, half of a surrogate pair has no UTF-8. */
const NOT_TEXT = /\0|\p{Surrogate}/u;

function optionalText(body: Record<string, unknown>, key: string): string | null {
  const value = body[key] ?? null;
  if (value !== null && typeof value !== 'string') throw new HttpError(400, `${key} is not a string`);
  if (value !== null && NOT_TEXT.test(value))
    throw new HttpError(
      400,
      `${key} contains a character that no path or tag can have`,
      'Remove NUL and unpaired surrogates.',
    );
  return value;
}

function parseSave(body: Record<string, unknown>, overTcp: boolean): SaveRequest {
  onlyKeys(body, ['store', 'tag', 'then']);
  const store = optionalText(body, 'store');
  const tag = optionalText(body, 'tag');
  const then = optionalText(body, 'then');
  if (store !== null && overTcp)
    throw new HttpError(403, 'a save over TCP cannot choose the store', 'Use the Unix socket.');
  if (store !== null && !isAbsolute(store)) throw new HttpError(400, 'store is not an absolute path');
  if (then !== null && !['resume', 'pause', 'stop'].includes(then))
    throw new HttpError(400, `then is ${JSON.stringify(then)}, not resume, pause or stop`);
  return { store, tag, then: then as SaveThen | null };
}

/** A request for something, as the routes see it. */
interface Exchange {
  readonly machine: ControlledMachine;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  readonly overTcp: boolean;
}

async function noBody(request: IncomingMessage): Promise<void> {
  onlyKeys(await readBody(request), []);
}

async function getMachine({ machine, response }: Exchange): Promise<void> {
  sendJson(response, 200, machine.describe());
}

/** pause, resume or stop, answered with the machine's name and state afterwards. */
const transition =
  (verb: 'pause' | 'resume' | 'stop') =>
  async ({ machine, request, response }: Exchange): Promise<void> => {
    await noBody(request);
    await machine[verb]();
    const { name, state } = machine.describe();
    sendJson(response, 200, { name, state });
  };

async function postSave({ machine, request, response, overTcp }: Exchange): Promise<void> {
  const save = parseSave(await readBody(request), overTcp);
  if (!(request.headers.accept ?? '').includes('application/x-ndjson')) {
    sendJson(response, 200, await machine.save(save, () => {}));
    return;
  }
  const line = (value: unknown) => response.write(`${JSON.stringify(value)}\n`);
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  let said = 0;
  try {
    const result = await machine.save(save, (doneBytes, totalBytes) => {
      const now = performance.now();
      if (now - said < PROGRESS_INTERVAL_MS) return;
      said = now;
      line({ progress: { doneBytes, totalBytes } });
    });
    line({ result });
  } catch (error) {
    line({ error: asLivesnapError(error).toJSON() });
  }
  response.end();
}

function parseHistory(text: string | null): number {
  if (text === null) return HISTORY_BYTES;
  if (!/^\d{1,9}$/.test(text)) throw new HttpError(400, 'history is not a number of bytes');
  return Math.min(Number(text), RING_BYTES);
}

async function getConsole({ machine, response, query }: Exchange): Promise<void> {
  const history = parseHistory(query.get('history'));
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'cache-control': 'no-store',
    trailer: END_TRAILER,
    [LINE_HEADER]: machine.console.atLineStart ? 'new' : 'begun',
  });
  // Whoever has these headers has joined: what the guest writes from now on is theirs.
  response.flushHeaders();
  const leave = machine.console.join(response, history, () => {
    if (machine.end !== null)
      response.addTrailers({ [END_TRAILER]: encodeURIComponent(JSON.stringify(endReport(machine.end))) });
    response.end();
  });
  response.once('close', leave);
}

/** Writes to the console as soon as less waits for a guest that is slow to read; meanwhile the sender waits. */
async function writePatiently(
  machine: ControlledMachine,
  bytes: Uint8Array,
  request: IncomingMessage,
): Promise<void> {
  while (!request.socket.destroyed) {
    try {
      machine.writeConsole(bytes);
      return;
    } catch (error) {
      if (!(error instanceof LivesnapError) || error.code !== 'NOT_POSSIBLE_NOW') throw error;
    }
    await sleep(INPUT_RETRY_MS);
  }
}

async function postConsole({ machine, request, response }: Exchange): Promise<void> {
  let bytes = 0;
  // Fed to the guest as it arrives, so that one long request serves a keyboard.
  for await (const part of chunks(request)) {
    for (let from = 0; from < part.length; from += INPUT_PIECE_BYTES) {
      const piece = part.subarray(from, from + INPUT_PIECE_BYTES);
      await writePatiently(machine, piece, request);
      bytes += piece.length;
    }
  }
  sendJson(response, 200, { bytes });
}

const ROUTES: Record<string, Record<string, (exchange: Exchange) => Promise<void>>> = {
  '/machine': { GET: getMachine },
  '/pause': { POST: transition('pause') },
  '/resume': { POST: transition('resume') },
  '/stop': { POST: transition('stop') },
  '/save': { POST: postSave },
  '/console': { GET: getConsole, POST: postConsole },
};

/** Errors: HttpError 400. */
function parseTarget(target: string): URL {
  try {
    return new URL(target, 'http://machine');
  } catch {
    throw new HttpError(
      400,
      `${JSON.stringify(target)} is not a valid request target`,
      'Use a path, such as /machine.',
    );
  }
}

/** Errors: HttpError 403 unless Host, and Origin where there is one, are this loopback port's. */
function checkOrigin(request: IncomingMessage, port: number): void {
  const hosts = [`127.0.0.1:${port}`, `localhost:${port}`];
  if (port === 80) hosts.push('127.0.0.1', 'localhost');
  const { host, origin } = request.headers;
  if (host === undefined || !hosts.includes(host.toLowerCase()))
    throw new HttpError(
      403,
      `requests to host ${JSON.stringify(host ?? '')} are not allowed`,
      `Use http://127.0.0.1:${port}.`,
    );
  if (origin !== undefined && !hosts.some((each) => origin.toLowerCase() === `http://${each}`))
    throw new HttpError(403, `requests from ${JSON.stringify(origin)} are not allowed`);
}

/** Listens before the machine runs, so that a taken address is known before the guest does anything. */
export class ControlServer {
  readonly #servers: Server[] = [];
  #machine: ControlledMachine | null = null;
  #releaseAddress = () => {};

  /** From now on requests are answered for `machine`; until then with 503. */
  serve(machine: ControlledMachine): void {
    this.#machine = machine;
  }

  async listenUnix(path: string): Promise<void> {
    const { address, close } = listeningAddress(path);
    this.#releaseAddress = close;
    await this.#listen(null, (server) => server.listen(address));
  }

  /** Errors: USAGE when the port cannot be had. Returns the port (useful when 0 was given). */
  async listenLoopback(port: number): Promise<number> {
    try {
      return await this.#listen(port, (server) => server.listen(port, '127.0.0.1'));
    } catch (error) {
      throw new LivesnapError(
        'USAGE',
        `the port ${port} cannot be listened on: ${(error as Error).message}`,
        {
          hint: 'Choose another --port.',
          cause: error,
        },
      );
    }
  }

  async #listen(port: number | null, start: (server: Server) => void): Promise<number> {
    // Input may come as slowly as a person types: no limit on how long a request takes to arrive in full.
    const server = createServer({ requestTimeout: 0 }, (request, response) => {
      const actual = port === null ? null : (server.address() as AddressInfo).port;
      void this.#answer(request, response, actual);
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
    // One request a connection: the process ends soon after the machine, and idle connections would hold it.
    response.shouldKeepAlive = false;
    response.on('error', () => {});
    try {
      if (port !== null) checkOrigin(request, port);
      const method = request.method ?? '';
      const url = parseTarget(request.url ?? '/');
      const route = Object.hasOwn(ROUTES, url.pathname) ? ROUTES[url.pathname]! : null;
      if (route === null)
        throw new HttpError(404, `No route for ${method} ${url.pathname}`, 'See docs/api.md for the routes.');
      const handler = Object.hasOwn(route, method) ? route[method]! : null;
      if (handler === null) {
        const allowed = Object.keys(route).join(', ');
        response.setHeader('allow', allowed);
        throw new HttpError(405, `No route for ${method} ${url.pathname}`, `Methods it allows: ${allowed}.`);
      }
      if (this.#machine === null) {
        sendJson(response, 503, {
          error: new LivesnapError('NOT_POSSIBLE_NOW', 'the machine is starting').toJSON(),
        });
        return;
      }
      await handler({
        machine: this.#machine,
        request,
        response,
        query: url.searchParams,
        overTcp: port !== null,
      });
    } catch (thrown) {
      // Whoever went away in the middle of a request needs no answer, and no line in the log.
      if ((thrown as NodeJS.ErrnoException).code === 'ECONNRESET') return;
      const error = asLivesnapError(thrown);
      if (!(thrown instanceof LivesnapError)) log.writeError(thrown);
      if (response.headersSent) response.destroy();
      else sendJson(response, statusOf(error), { error: error.toJSON() });
      request.resume();
    }
  }

  /**
   * Takes no more requests, lets those under way be answered and their bytes leave for at most `graceMs`, and
   * closes every connection.
   */
  async close(graceMs: number): Promise<void> {
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    // An input stream ends when its sender likes: it is not waited for.
    const timer = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
    }, graceMs);
    await Promise.all(closed);
    clearTimeout(timer);
    this.#releaseAddress();
    this.#releaseAddress = () => {};
  }
}
