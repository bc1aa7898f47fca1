/**
 * The server with its real routes, access and page, before a host that is made up. So the page is tested without machines,
 * and in states that real machines are seldom in.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { LivesnapError } from '../../src/errors.js';
import { loopbackOrigins } from '../../src/machine/origin.js';
import { Access } from '../../src/server/access.js';
import { makeApp } from '../../src/server/app.js';
import type { Frame } from '../../src/server/feed.js';
import { readPageFiles } from '../../src/server/page-files.js';
import type { Overview } from '../../src/server/schemas.js';
import { type ServedStore, ServedStores } from '../../src/server/served-stores.js';
import type { Service } from '../../src/server/service.js';

export type Queries = Readonly<Record<string, (...args: never[]) => unknown>>;

export class FakeServer {
  readonly requests: string[] = [];
  readonly #access = new Access('t'.repeat(43));
  readonly #closing = new AbortController();
  readonly #waiting = new Set<() => void>();
  readonly #frames: Frame[] = [];
  #server!: Server;
  #count = 0;

  private constructor(
    readonly overview: Overview,
    readonly queries: Queries,
  ) {}

  static async start(overview: Overview, queries: Queries = {}, port = 0): Promise<FakeServer> {
    const fake = new FakeServer(overview, queries);
    await fake.#listen(port);
    return fake;
  }

  async #listen(wanted: number): Promise<void> {
    const { overview } = this;
    const host = {
      storeDir: '/store',
      machines: async () => overview.machines,
      machine: async () => {
        throw new LivesnapError('NO_SUCH_MACHINE', 'the machines are made up');
      },
    };
    const [main, ...others] = overview.host.stores.map((name, i): ServedStore => {
      // Only the first has snapshots.
      const shown =
        i === 0 ? overview : { ...overview, snapshots: [], host: { ...overview.host, store: name } };
      return {
        name,
        host,
        feed: {
          lookSoon: () => {},
          overview: async () => shown,
          read: (options: { signal: AbortSignal }) => this.#read(shown, options.signal),
        },
        client: {
          ask: async (name: string, ...args: never[]) => {
            const query = this.queries[name];
            if (query === undefined) throw new LivesnapError('SYSTEM', `the made-up store has no ${name}`);
            return query(...args);
          },
        },
      } as unknown as ServedStore;
    });
    const service = {
      host,
      stores: new ServedStores(main!, others),
      jobs: {
        list: async () => overview.jobs,
        find: async () => overview.jobs[0],
        remove: async () => {},
        processes: { start: async () => ({ id: overview.jobs[0]!.id }) },
      },
      remotes: new Map(),
      taps: new Set(),
      ports: null,
      access: this.#access,
      signInFiles: { remove() {} },
      origin: () => null,
      files: {},
      log: { say() {}, fault: (error: unknown) => console.error(error), refused() {} },
      version: '0.0.0',
      maxImportBytes: 0,
      page: readPageFiles(),
      startedAt: new Date(),
      closing: this.#closing.signal,
    } as unknown as Service;
    const app = await makeApp(
      service,
      () => ({ isPrivate: false, origins: loopbackOrigins(this.port) }),
      (answer) => {
        this.#server = createServer((request, response) => {
          this.requests.push(`${request.method} ${request.url}`);
          answer(request, response);
        });
        return this.#server;
      },
    );
    await app.ready();
    await new Promise<void>((resolve) => this.#server.listen(wanted, '127.0.0.1', resolve));
  }

  async *#read(overview: Overview, signal: AbortSignal): AsyncGenerator<Frame> {
    yield { position: `f-${this.#count}`, event: 'state', data: JSON.stringify(overview) };
    let seen = this.#frames.length;
    while (!signal.aborted) {
      if (seen < this.#frames.length) yield this.#frames[seen++]!;
      else
        await new Promise<void>((resolve) => {
          this.#waiting.add(resolve);
          signal.addEventListener('abort', () => resolve());
        });
    }
  }

  /** Tells the page of an event. */
  tell(event: string, data: unknown): void {
    this.#frames.push({ position: `f-${++this.#count}`, event, data: JSON.stringify(data) });
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The address that `livesnap open` sends a browser to. */
  get signInUrl(): string {
    return `http://127.0.0.1:${this.port}/#code=${this.#access.newCode().secret}`;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
