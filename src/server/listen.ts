/**
 * Where the API listens: a Unix socket, and an address of TCP, plain or with TLS.
 *
 * Invariants:
 * - Connections, the time of a request's headers and body, and idle connections are bounded, so clients that send half a
 *   request keep nobody else away for long.
 * - How a connection came is noted when it is accepted (Arrival), and nothing in a request changes that.
 * - One server has the socket: the holder of the lock beside it.
 */
import { closeSync, constants, mkdirSync, openSync, readFileSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { LivesnapError } from '../errors.js';
import { listenError } from '../machine/listen-error.js';
import { isLoopback, loopbackOrigins, type Origins } from '../machine/origin.js';
import { checkRunRoot } from '../machine/run-directory.js';
import { listeningAddress } from '../machine/socket-path.js';
import { certificateOrigins } from './origin.js';
import type { Arrival } from './service.js';

const LIMITS = {
  headersTimeout: 10_000,
  /** An archive may take long. Routes have shorter times of their own (app.ts). */
  requestTimeout: 12 * 3_600_000,
  keepAliveTimeout: 30_000,
  connectionsCheckingInterval: 2_000,
  maxHeaderSize: 16 * 1024,
};
const MAX_CONNECTIONS = 512;
/** Never the name of a machine. */
const DIRECTORY = '.serve';

export interface TcpOptions {
  readonly address: string;
  /** 0: the system chooses. */
  readonly port: number;
  /** Paths of PEM files. */
  readonly tls: { readonly cert: string; readonly key: string } | null;
  /** The origin of a proxy in front. */
  readonly publicOrigin: string | null;
}

const ARRIVAL = Symbol('arrival');

/** How the connection of a request came. */
export const arrivalOf = (request: IncomingMessage): Arrival =>
  (request.socket as Socket & { [ARRIVAL]: Arrival })[ARRIVAL];

const PRIVATE: Arrival = { isPrivate: true, origins: new Set() };

function noteArrival(server: Server, arrival: Arrival): void {
  for (const event of ['connection', 'secureConnection'])
    server.prependListener(event, (socket: Socket & { [ARRIVAL]?: Arrival }) => {
      socket[ARRIVAL] = arrival;
    });
}

function limited(server: Server): Server {
  server.maxConnections = MAX_CONNECTIONS;
  server.maxRequestsPerSocket = 10_000;
  server.setTimeout(0);
  // A client that hangs up, or speaks no HTTP, needs no answer.
  server.on('clientError', (_error, socket) => socket.destroy());
  return server;
}

function listening(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    start();
  });
}

/** The Unix socket's directory, with its lock. */
export class SocketDirectory implements Disposable {
  readonly socket: string;
  readonly #lockFd: number;

  private constructor(
    readonly path: string,
    lockFd: number,
  ) {
    this.socket = join(path, 'api.sock');
    this.#lockFd = lockFd;
  }

  /** Errors: NAME_IN_USE (another server of this user runs), SYSTEM. */
  static async claim(runRoot: string): Promise<SocketDirectory> {
    const { requireLocks, tryLock } = await import('../native/locks.js');
    requireLocks();
    await checkRunRoot(runRoot);
    const path = join(runRoot, DIRECTORY);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const fd = openSync(
      join(path, 'lock'),
      constants.O_CREAT | constants.O_RDWR | constants.O_NOFOLLOW,
      0o600,
    );
    if (!tryLock(fd, 'exclusive')) {
      closeSync(fd);
      throw new LivesnapError('NAME_IN_USE', 'a server of this user is running already', {
        hint: `It listens on ${join(path, 'api.sock')}. Stop it first, or use it.`,
      });
    }
    const directory = new SocketDirectory(path, fd);
    directory.#removeSocket();
    return directory;
  }

  #removeSocket(): void {
    try {
      unlinkSync(this.socket);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#removeSocket();
    closeSync(this.#lockFd);
  }
}

/** The path of the socket of this user's server, whether or not it runs. */
export const serverSocket = (runRoot: string): string => join(runRoot, DIRECTORY, 'api.sock');

/** The server for the Unix socket; it listens after {@link listenOnSocket}. */
export function makeSocketServer(answer: RequestListener): Server {
  const server = limited(createServer(LIMITS, answer));
  noteArrival(server, PRIVATE);
  return server;
}

export async function listenOnSocket(server: Server, path: string): Promise<void> {
  const { address, close } = listeningAddress(path);
  server.once('close', close);
  // Only this user reaches the directory; the socket's own mode is for those who look.
  const mask = process.umask(0o177);
  try {
    await listening(server, () => server.listen(address));
  } finally {
    process.umask(mask);
  }
}

/** Listens on TCP. Resolves to the server and the origins under which it is reached. Errors: USAGE, NO_SUCH_FILE. */
export async function listenOnTcp(
  { address, port, tls, publicOrigin }: TcpOptions,
  answer: RequestListener,
): Promise<{ server: Server; origins: Origins }> {
  const certificate = tls === null ? null : readPem(tls.cert, '--tls-cert');
  const server =
    tls === null || certificate === null
      ? createServer(LIMITS, answer)
      : makeTlsServer(certificate, readPem(tls.key, '--tls-key'), answer);
  limited(server);
  try {
    await listening(server, () => server.listen({ host: address, port, exclusive: true }));
  } catch (error) {
    throw listenError(`port ${port} of ${address}`, error, 'Choose another --listen ADDRESS:PORT.');
  }
  const actualPort = (server.address() as AddressInfo).port;
  const origins = new Set([
    ...(publicOrigin === null ? [] : [publicOrigin]),
    ...(certificate === null ? [] : certificateOrigins(certificate, actualPort)),
    ...(certificate === null && isLoopback(address) ? loopbackOrigins(actualPort) : []),
  ]);
  noteArrival(server, { isPrivate: false, origins });
  return { server, origins };
}

function makeTlsServer(cert: string, key: string, answer: RequestListener): Server {
  try {
    return createTlsServer({ ...LIMITS, cert, key, handshakeTimeout: LIMITS.headersTimeout }, answer);
  } catch (error) {
    throw new LivesnapError('USAGE', `the certificate cannot be used: ${(error as Error).message}`, {
      hint: 'Give the certificate chain and its key as PEM files.',
      cause: error,
    });
  }
}

/** Errors: NO_SUCH_FILE. */
function readPem(path: string, option: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new LivesnapError(
      'NO_SUCH_FILE',
      `${option}: ${path} cannot be read: ${(error as Error).message}`,
      {
        hint: 'Give a PEM file.',
        cause: error,
      },
    );
  }
}
