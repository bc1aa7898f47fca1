/**
 * The stores of a server, by the names that requests use. The first is the one that a request without a name means.
 *
 * Invariants:
 * - A request names a store. It never gives or gets a path.
 * - Stores share nothing: each has a thread of its own, which runs only while the store is asked, and a feed of its own,
 *   which looks only while somebody reads. A store that does not answer keeps no other one waiting.
 */
import { LivesnapError } from '../errors.js';
import { Host } from '../host/host.js';
import { HostEvents } from '../host/host-events.js';
import { Feed } from './feed.js';
import { hostAbout } from './host-about.js';
import type { ServerJobs } from './jobs.js';
import type { ServerLog } from './server-log.js';
import { StoreClient } from './store-client.js';

/** The name of the store that `serve` has without a name. */
export const MAIN_STORE = 'main';

export interface ServedStore {
  readonly name: string;
  /** Starts and restores machines with this store. */
  readonly host: Host;
  readonly client: StoreClient;
  readonly feed: Feed;
}

export class ServedStores {
  /** By name, the main one first. */
  readonly #stores: ReadonlyMap<string, ServedStore>;
  readonly main: ServedStore;

  constructor(main: ServedStore, others: readonly ServedStore[] = []) {
    this.main = main;
    this.#stores = new Map([main, ...others].map((store) => [store.name, store]));
  }

  get all(): readonly ServedStore[] {
    return [...this.#stores.values()];
  }

  /** Undefined: the main one. Errors: USAGE. */
  named(name: string | undefined): ServedStore {
    const found = name === undefined ? this.main : this.#stores.get(name);
    if (found !== undefined) return found;
    throw new LivesnapError('USAGE', `this server has no store ${JSON.stringify(name)}`, {
      hint: `It has ${[...this.#stores.keys()].join(', ')}. Stores are named at its start: serve --named-store NAME=DIR.`,
    });
  }

  /** The store that a machine was started with, or the main one if it is none of this server. */
  ofMachine({ store }: { readonly store: string }): ServedStore {
    return this.all.find(({ host }) => host.storeDir === store) ?? this.main;
  }

  /** To be called when a job has begun or was forgotten. */
  lookSoon(): void {
    for (const { feed } of this.all) feed.lookSoon();
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map(({ client }) => client.close()));
  }
}

export interface StoreDirectories {
  readonly main: string;
  /** By name. */
  readonly others: ReadonlyMap<string, string>;
}

/** Opens nothing. Errors: USAGE (a name or a directory occurs twice). */
export function serveStores(
  { main, others }: StoreDirectories,
  { jobs, log, version }: { readonly jobs: ServerJobs; readonly log: ServerLog; readonly version: string },
): ServedStores {
  const directories = new Map([[MAIN_STORE, main], ...others]);
  if (others.has(MAIN_STORE) || new Set(directories.values()).size <= others.size)
    throw new LivesnapError('USAGE', `--named-store gives the name ${MAIN_STORE} or a directory twice`, {
      hint: `${MAIN_STORE} is the store of --store. Each other store has a name and a directory of its own.`,
    });
  const names = [...directories.keys()];
  const [first, ...rest] = [...directories].map(([name, dir]): ServedStore => {
    const host = new Host(dir);
    const client = new StoreClient(dir);
    const feed = new Feed({
      // The store's thread lists, not this one.
      events: new HostEvents(dir, () => client.ask('list')),
      machines: (filter) => host.machines(filter),
      jobs: (machines) => jobs.list(machines),
      about: hostAbout(version, dir, { store: name, stores: names }),
      stats: () => client.ask('stats').catch(nullIfAbsent),
      uniqueBytes: async () => {
        const found = await client.ask('uniqueBytes').catch(nullIfAbsent);
        return found && Object.fromEntries(found);
      },
      log,
    });
    return { name, host, client, feed };
  });
  return new ServedStores(first!, rest);
}

/** There is no store before the first save. */
function nullIfAbsent(error: unknown): null {
  if (error instanceof LivesnapError && error.code === 'NO_SUCH_FILE') return null;
  throw error;
}
