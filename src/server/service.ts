/** What the routes of the server are given, and how a request came. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { FastifyInstance } from 'fastify';
import type { Host } from '../host/host.js';
import type { Origins } from '../machine/origin.js';
import type { Access, Caller } from './access.js';
import type { AllowedFiles } from './allowed-files.js';
import type { ServerJobs } from './jobs.js';
import type { PageFile } from './page-files.js';
import type { ServedStores } from './served-stores.js';
import type { ServerLog } from './server-log.js';
import type { SignInFiles } from './sign-in-files.js';

/** What the routes use. */
export interface Service {
  /** Of the main store. */
  readonly host: Host;
  readonly stores: ServedStores;
  readonly jobs: ServerJobs;
  /** Addresses of other stores, by the names that requests use. */
  readonly remotes: ReadonlyMap<string, string>;
  /** Names of taps that requests may use. */
  readonly taps: ReadonlySet<string>;
  /** Ports of loopback that machines may forward. Null: none. */
  readonly ports: { readonly from: number; readonly to: number } | null;
  readonly access: Access;
  readonly signInFiles: SignInFiles;
  /** Where browsers reach the server. Null: only the Unix socket is there. */
  readonly origin: () => string | null;
  readonly files: AllowedFiles;
  readonly log: ServerLog;
  readonly version: string;
  /** The largest archive that is imported. */
  readonly maxImportBytes: number;
  /** The files of the page, by path. */
  readonly page: ReadonlyMap<string, PageFile>;
  readonly startedAt: Date;
  /** Aborted when the server ends: streams without an end must end then. */
  readonly closing: AbortSignal;
}

/** How a request came. Listeners note it for each connection. */
export interface Arrival {
  /** The Unix socket, which only this user can open. */
  readonly isPrivate: boolean;
  /** The names of the server there. Empty for the Unix socket. */
  readonly origins: Origins;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Needs no caller. */
    readonly isPublic?: boolean;
  }
  interface FastifyRequest {
    caller: Caller | null;
  }
}

/** The fastify instance with the types of the schemas. */
export type App = FastifyInstance<Server, IncomingMessage, ServerResponse, never, TypeBoxTypeProvider>;
