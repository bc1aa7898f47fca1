/**
 * The console of a machine as a WebSocket: GET /v1/machines/:machine/console.
 *
 * What flows: binary messages with the guest's output to the client, and messages with input to the guest. At the end of
 * the machine there is a text message, JSON `{"end": "poweredOff", "error": null}`, and the socket closes.
 *
 * A browser cannot send headers here. It proves its session by a subprotocol, `session.SECRET` beside `livesnap`, which is
 * never sent back.
 *
 * Invariants:
 * - Host, Origin and caller are checked before the machine is looked for.
 * - A client that reads too slowly holds its own stream only; a client that types too fast waits for the guest.
 */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { asLivesnapError } from '../errors.js';
import type { Console } from '../host/console.js';
import { HttpError } from '../machine/http-status.js';
import { callerOf } from './caller.js';
import { PROBLEM_TYPE, problemOf } from './problem.js';
import type { Arrival, Service } from './service.js';

const PROTOCOL = 'livesnap';
const MAX_INPUT_BYTES = 64 * 1024;
const MAX_HISTORY_BYTES = 1024 * 1024;
const MAX_CONSOLES = 256;
const PING_MS = 30_000;
const PATH = /^\/v1\/machines\/([^/]{1,200})\/console$/;
/** RFC 6455, 7.4.1. */
const NORMAL = 1000;
const FAULT = 1011;

const protocolsOf = ({ headers }: IncomingMessage): string[] =>
  (headers['sec-websocket-protocol'] ?? '').split(',').map((each) => each.trim());

/** The caller, by its session or its header. Errors: HttpError 401, 403. */
function requireCaller(request: IncomingMessage, arrival: Arrival, { access }: Service): void {
  const session = protocolsOf(request).find((each) => each.startsWith('session.'));
  if (session !== undefined) request.headers.authorization = `Bearer ${session.slice('session.'.length)}`;
  callerOf(request, arrival, access);
}

function historyOf({ searchParams }: URL): number {
  const text = searchParams.get('history') ?? '0';
  if (/^\d{1,7}$/.test(text) && Number(text) <= MAX_HISTORY_BYTES) return Number(text);
  throw new HttpError(400, `history is not a number of bytes up to ${MAX_HISTORY_BYTES}`);
}

/** Serves consoles on the connections of these servers. */
export class ConsoleSockets {
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_INPUT_BYTES,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(PROTOCOL) ? PROTOCOL : false),
  });

  constructor(
    readonly service: Service,
    readonly arrivalOf: (request: IncomingMessage) => Arrival,
  ) {}

  serve(server: Server): void {
    server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => {});
      this.#open(request, socket, head).catch((error: unknown) => this.#refuse(request, socket, error));
    });
  }

  async #open(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    requireCaller(request, this.arrivalOf(request), this.service);
    const url = new URL(request.url ?? '/', 'http://server');
    const [, name] = PATH.exec(url.pathname) ?? [];
    if (name === undefined)
      throw new HttpError(404, 'this is no WebSocket', 'A console is: /v1/machines/NAME/console.');
    if (this.#sockets.clients.size >= MAX_CONSOLES) throw new HttpError(503, 'too many consoles are open');
    const historyBytes = historyOf(url);
    const machine = await this.service.host.machine(decodeURIComponent(name));
    const console = await machine.console({ historyBytes });
    this.#sockets.handleUpgrade(request, socket, head, (client) => {
      client.on('error', () => {}); // `close` follows
      client.once('close', () => void console.close());
      keepAlive(client);
      void this.#sendOutput(console, client);
      takeInput(console, client);
    });
    socket.once('close', () => void console.close()); // if there was no upgrade
  }

  async #sendOutput(console: Console, client: WebSocket): Promise<void> {
    try {
      for await (const bytes of console) await sent(client, bytes);
      const { end } = console;
      await sent(client, JSON.stringify({ end: end?.kind ?? null, error: end?.error ?? null }));
      client.close(NORMAL);
    } catch (error) {
      if (client.readyState !== client.OPEN) return;
      client.send(JSON.stringify({ end: null, error: asLivesnapError(error).toJSON() }));
      client.close(FAULT);
    }
  }

  #refuse(request: IncomingMessage, socket: Duplex, error: unknown): void {
    const problem = problemOf(error);
    if (problem.status === 401 || problem.status === 403)
      this.service.log.refused(`${problem.status} console: ${problem.detail}`);
    else if (problem.status >= 500) this.service.log.fault(error);
    const body = JSON.stringify(problem);
    socket.end(
      [
        `HTTP/1.1 ${problem.status} ${problem.title}`,
        'connection: close',
        `content-type: ${PROBLEM_TYPE}`,
        `content-length: ${Buffer.byteLength(body)}`,
        '',
        request.method === 'HEAD' ? '' : body,
      ].join('\r\n'),
    );
  }

  close(): void {
    for (const client of this.#sockets.clients) client.close(1001);
    this.#sockets.close();
  }
}

/** Resolves when the client's system has the message, so a slow client slows the reading of its console. */
const sent = (client: WebSocket, data: Uint8Array | string): Promise<void> =>
  new Promise((resolve, reject) => {
    client.send(data, (error) => (error ? reject(error) : resolve()));
  });

function takeInput(console: Console, client: WebSocket): void {
  client.on('message', (data: Buffer) => {
    client.pause();
    console.write(data).then(
      () => client.resume(),
      () => client.close(NORMAL),
    );
  });
}

/** Ends the connection of a client that is gone without a word. */
function keepAlive(client: WebSocket): void {
  let isAlive = true;
  client.on('pong', () => {
    isAlive = true;
  });
  const timer = setInterval(() => {
    if (!isAlive) return client.terminate();
    isAlive = false;
    client.ping();
  }, PING_MS);
  client.once('close', () => clearInterval(timer));
}
