/**
 * The server of a host: what `livesnap serve` runs, a bundle of its own, because the command line does not load fastify.
 *
 * It holds no state. Machines are found by their run directories and snapshots in the store, so it can be killed and
 * started again at any time. Sessions are signed with the token and stay valid.
 */
import type { IncomingMessage, RequestListener, Server } from 'node:http';
import { runRoot } from '../environment.js';
import { LivesnapError } from '../errors.js';
import { Host } from '../host/host.js';
import { Jobs } from '../jobs/jobs.js';
import { sweepUploads } from '../jobs/upload-directory.js';
import { isLoopback } from '../machine/origin.js';
import { tokenIn } from '../token-file.js';
import { Access, CODE_LIFETIME_MS } from './access.js';
import { AllowedFiles } from './allowed-files.js';
import { makeApp } from './app.js';
import { ConsoleSockets } from './console-socket.js';
import { ServerJobs } from './jobs.js';
import {
  arrivalOf,
  listenOnSocket,
  listenOnTcp,
  makeSocketServer,
  SocketDirectory,
  type TcpOptions,
} from './listen.js';
import { publicOrigin } from './origin.js';
import { type OriginalOptions, serveOriginal } from './original.js';
import { readPageFiles } from './page-files.js';
import { serveStores } from './served-stores.js';
import { ServerLog } from './server-log.js';
import type { Service } from './service.js';
import { SignInFiles } from './sign-in-files.js';

export interface ServeOptions {
  /** The store of requests that name none. */
  readonly storeDir: string;
  /** Directories of more stores, by the names that requests use. */
  readonly namedStores: ReadonlyMap<string, string>;
  readonly version: string;
  readonly tokenFile: string;
  /** Addresses of other stores, by the names that requests use. */
  readonly remotes: ReadonlyMap<string, string>;
  readonly maxImportBytes: number;
  /** Names of taps that requests may use. */
  readonly taps: ReadonlySet<string>;
  /** Ports of loopback that machines may forward. Null: none. */
  readonly ports: { readonly from: number; readonly to: number } | null;
  /** Directories of which requests may name files. */
  readonly allow: readonly string[];
  /** The API of the program that livesnap replaces. Null: it is not served. */
  readonly original: OriginalOptions | null;
  /** Null: only the Unix socket. */
  readonly listen: { readonly address: string; readonly port: number } | null;
  /** Paths of PEM files. */
  readonly tls: TcpOptions['tls'];
  /** The https address of a proxy in front. */
  readonly publicUrl: string | null;
}

export interface RunningServer {
  readonly socket: string;
  /** Where it is reached over TCP. */
  readonly url: string | null;
  /** Where the API of the original program is. */
  readonly originalUrl: string | null;
  /** Requests in progress are completed, for a few seconds. Machines go on. */
  close(): Promise<void>;
}

/** Notes of this bundle: the one of the command line has a listener of its own. */
export { onNote } from '../notes.js';

/** Errors: NAME_IN_USE (another server of this user runs, a port is taken), USAGE, NO_PERMISSION, NO_SUCH_FILE, SYSTEM. */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const { storeDir, version, tokenFile, remotes, maxImportBytes, taps, ports } = options;
  const files = new AllowedFiles(options.allow);
  const tcp = tcpOptions(options);
  const directory = await SocketDirectory.claim(runRoot());
  const servers: Server[] = [];
  try {
    const log = new ServerLog();
    const closing = new AbortController();
    sweepUploads();
    const signInFiles = new SignInFiles(directory.path, CODE_LIFETIME_MS);
    let url: string | null = null;
    const jobs = new ServerJobs(new Host(storeDir), new Jobs(runRoot(), storeDir));
    const stores = serveStores({ main: storeDir, others: options.namedStores }, { jobs, log, version });
    const { host } = stores.main;
    const service: Service = {
      host,
      stores,
      jobs,
      remotes,
      maxImportBytes,
      taps,
      ports,
      access: new Access(tokenIn(tokenFile)),
      signInFiles,
      origin: () => url,
      files,
      log,
      version,
      page: readPageFiles(),
      startedAt: new Date(),
      closing: closing.signal,
    };
    let answer!: RequestListener;
    const app = await makeApp(service, arrivalOf, (handler) => {
      answer = handler as RequestListener;
      return makeSocketServer(answer);
    });
    const sockets = new ConsoleSockets(service, arrivalOf);
    const socketServer = app.server as Server;
    servers.push(socketServer);
    if (tcp !== null) {
      const { server, origins } = await listenOnTcp(tcp, (request: IncomingMessage, response) =>
        answer(request as never, response as never),
      );
      servers.push(server);
      url = [...origins][0] ?? null;
    }
    await listenOnSocket(socketServer, directory.socket);
    const original = options.original && (await serveOriginal({ host, files, taps, log }, options.original));
    for (const server of servers) sockets.serve(server);
    return {
      socket: directory.socket,
      url,
      originalUrl: original?.url ?? null,
      close: async () => {
        closing.abort();
        await original?.close();
        sockets.close();
        signInFiles.close();
        await Promise.all(servers.map(closed));
        await app.close();
        await stores.close();
        directory[Symbol.dispose]();
      },
    };
  } catch (error) {
    for (const server of servers) server.close();
    directory[Symbol.dispose]();
    throw error;
  }
}

/** Errors: USAGE. */
function tcpOptions({ listen, tls, publicUrl }: ServeOptions): TcpOptions | null {
  if (listen === null) return null;
  if (!isLoopback(listen.address) && tls === null && publicUrl === null)
    throw new LivesnapError('USAGE', `the API is not served on ${listen.address} without encryption`, {
      hint: 'Give --tls-cert and --tls-key, or --public-url for a proxy that speaks HTTPS.',
    });
  return { ...listen, tls, publicOrigin: publicUrl === null ? null : publicOrigin(publicUrl) };
}

const GRACE_MS = 5_000;

/** Accepts no more connections, and ends those that are left after a few seconds. */
function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), GRACE_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
